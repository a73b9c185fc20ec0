"""`medvl embed`: what a bundle makes of a cohort, written once for every head and protocol that reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.errors import ConfigError

from .built_in import bundle_folder
from .console import err, say, warn
from .patient_key import patient_key as key_given

if TYPE_CHECKING:
    from medvl.data.cohort import PhantomCohort
    from medvl.evaluation.embedded import Embedded
    from medvl.inference.predictor import Predictor

SPLITS = ("train", "validation", "test")


def run(
    bundle: str,
    out: Path,
    *,
    split: str = "test",
    table: Path | None = None,
    crops: Path | None = None,
    limit: int | None = None,
    device: str = "cpu",
    patient_key: Path | None = None,
) -> int:
    """Exit code 0 after writing the embedded cohort to `out` (with a table: one folder a split below it).

    Raises:
        ConfigError: the split or the table is not usable.
    """
    if split not in SPLITS:
        raise ConfigError(f"split must be one of {', '.join(SPLITS)}, got {split}")
    key = key_given(patient_key, out) if table is not None else b""
    with err().status("loading the model"):
        from medvl.inference.predictor import Predictor
        from medvl.models.bundle import open_bundle

        predictor = Predictor(open_bundle(bundle_folder(bundle)), device)
    if table is not None:
        for name, found in of_table(predictor, table, out / "crops", key):
            found.save(out / name)
            _tell(found, out / name)
        return 0
    found = of_phantoms(predictor, split, crops=crops, limit=limit)
    found.save(out)
    _tell(found, out)
    return 0


def of_phantoms(predictor: Predictor, split: str, *, crops: Path | None = None, limit: int | None = None) -> Embedded:
    """The bundle's own phantoms: test patients from their scans through the localiser, or crops built under `crops`."""
    from medvl.inference.embed import embed_cohort, embed_phantoms

    which = phantoms_of(predictor, split, None if crops else limit)
    source = {"cohort": f"phantom seed {which.seed}", "split": split}
    if crops is None:
        with _bar(f"{split} patients") as told:
            return embed_phantoms(predictor, which, {**source, "way": "scans"}, told)
    from medvl.data.cohort import build_phantom

    with _bar(f"crops of {split} patients") as told:
        cohort = build_phantom(crops, which, predictor.contract, progress=told)
    with _bar(f"{split} patients") as told:
        return embed_cohort(predictor, cohort, {**source, "way": "crops"}, told, limit)


def phantoms_of(predictor: Predictor, split: str, limit: int | None = None) -> PhantomCohort:
    """The patients of one split that the bundle's recipe names.

    Raises:
        ConfigError: the bundle was not trained on phantoms.
    """
    from medvl.data.cohort import PhantomCohort

    cohort: dict[str, Any] = predictor.bundle.values("metrics.json").get("cohort") or {}
    if f"n_{split}" not in cohort:
        raise ConfigError(f"bundle {predictor.bundle.name} names no phantom cohort; give your studies with --table")
    n = min(cohort[f"n_{split}"], limit or cohort[f"n_{split}"])
    start = cohort.get(f"start_{split}", 0)
    return PhantomCohort(cohort["seed"], start, n, cohort.get("jitter_mm", 0.0))


def of_table(predictor: Predictor, table: Path, cache: Path, patient_key: bytes = b"") -> Iterator[tuple[str, Embedded]]:
    """Each split of a table of studies and reports, its regions found by the bundle's localiser."""
    from medvl.data.person import fingerprint
    from medvl.data.table_cohort import build_table
    from medvl.dataset import open_studies
    from medvl.inference.embed import embed_cohort

    from .locate import Locator

    read = open_studies(table, patient_key=patient_key)
    if patient_key and not all(fingerprint(patient_key) in case.person for case in read.cases):
        warn("the dataset was made without this patient key and keeps what links it has; run medvl ingest with the key again")
    locate, beyond = Locator(predictor.bundle.folder, predictor.contract.names), predictor.prepare.localiser.config.regions
    cohorts = build_table(cache, read, predictor.contract, locate, locate_key=predictor.bundle.sha256, beyond=beyond)
    for split, cohort in cohorts.items():
        with _bar(f"{split} cases") as told:
            yield split, embed_cohort(predictor, cohort, {"cohort": "table", "split": split, "way": "scans"}, told)


def _tell(found: Embedded, out: Path) -> None:
    left = found.rows["reason"][found.rows["reason"] != ""].value_counts()
    lost = ", ".join(f"{n} {code}" for code, n in left.items())
    say(
        f"{len(found.patients)} patients, {int(found.usable.sum())} of {len(found)} regions read"
        f"{f' (not read: {lost})' if lost else ''}; written to {out}"
    )


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err()
    ) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
