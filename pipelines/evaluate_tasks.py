"""`medvl evaluate` for a protocol of downstream tasks: heads are fitted on a bundle's features and measured on test patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medvl.errors import ConfigError

from .built_in import bundle_folder, protocol_file
from .console import err, warn

if TYPE_CHECKING:
    import pandas as pd

    from medvl.evaluation.embedded import Embedded
    from medvl.heads.task_record import Encoder
    from medvl.models.bundle import Bundle

LARGE = 100


def applies(protocol: str) -> bool:
    """Whether a protocol, by name or file, is one of downstream tasks.

    Raises:
        ConfigError: there is no such protocol.
    """
    from medvl.heads.task_list import fits_heads

    return fits_heads(protocol_file(protocol))


def run(
    bundle: str,
    *,
    protocol: str,
    embedded: Sequence[Path] = (),
    training: Sequence[Path] = (),
    labels: Path | None = None,
    against: str | None = None,
    out: Path | None = None,
    draws: int | None = None,
    limit: int | None = None,
    as_json: bool = False,
) -> int:
    """Exit code 0 after telling the results, 5 when a case of the cohort is in a training split too.

    Args:
        bundle: whose features the heads learn from.
        protocol: name of a built-in protocol, or a YAML file.
        embedded: what `medvl embed` wrote of test patients; several folders are several scans of them.
        training: the same of train and validation patients. None at all embeds the bundle's own phantoms.
        labels: CSV with one row a lesion; None takes the truth of phantoms.
        against: BUNDLE=FOLDER, a second encoder and its folders train, validation and test.
        out: folder for `results.json`, `report.md`, `report.html` and figures, and for labels and cohorts that are made here.
        draws: instead of the protocol's.
        limit: of phantoms of each split that are embedded here.
        as_json: print the results file instead of tables.

    Raises:
        ConfigError: the protocol, a folder, the labels or a bundle is not usable, or they do not fit one another.
    """
    from medvl.heads.task_list import load_ten_tasks

    wanted = load_ten_tasks(protocol_file(protocol), {} if draws is None else {"draws": draws})
    with err().status("loading"):
        from medvl.evaluation.report.tasks import tasks_document
        from medvl.heads.task_record import Encoder, by_split, evaluate_tasks
        from medvl.models.bundle import open_bundle

        opened = open_bundle(bundle_folder(bundle))
        read = _read([*embedded, *training])
        second = _second(against) if against else None
    if not read:
        read = _phantoms(opened, limit, out)
    encoder = Encoder(opened.name, opened.sha256, by_split(read))
    table = _labels(labels, read)
    with err().status("fitting and measuring"):
        told = evaluate_tasks(wanted, encoder, table, second)
    if out is not None and labels is None:
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(out / "labels.csv", index=False)
    from .evaluate import publish

    return publish(told, tasks_document(told), out, as_json=as_json)


def _read(folders: Sequence[Path]) -> list[Embedded]:
    from medvl.evaluation.embedded import Embedded

    return [Embedded.load(path) for path in folders]


def _labels(path: Path | None, read: Sequence[Embedded]) -> pd.DataFrame:
    """The table of labels, or what the truth of phantoms tells."""
    if path is None:
        from medvl.heads.phantom_lesions import phantom_labels

        return phantom_labels(read)
    import pandas as pd

    try:
        return pd.read_csv(path, dtype={"patient_id": str})
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ConfigError(f"{path} is no table of labels: {error}") from error


def _second(against: str) -> Encoder:
    from medvl.heads.task_record import Encoder, by_split
    from medvl.heads.ten_tasks import SPLITS
    from medvl.models.bundle import open_bundle

    name, sign, folder = against.partition("=")
    if not sign:
        raise ConfigError(
            f"heads need the embedded cohorts of the second encoder too: --against {name}=FOLDER with {', '.join(SPLITS)}"
        )
    opened = open_bundle(bundle_folder(name))
    return Encoder(opened.name, opened.sha256, by_split(_read([Path(folder) / split for split in SPLITS])))


def _phantoms(opened: Bundle, limit: int | None, out: Path | None) -> list[Embedded]:
    """The bundle's own phantoms of every split, scanned and read."""
    from medvl.heads.ten_tasks import SPLITS
    from medvl.inference.predictor import Predictor

    from .embed import of_phantoms, phantoms_of

    predictor, found = Predictor(opened), []
    n = sum(phantoms_of(predictor, split, limit).n for split in SPLITS)
    if n > LARGE:
        warn(f"medvl: {n} phantoms are scanned and read first; --limit takes fewer, --embedded and --training what exists")
    for split in SPLITS:
        found.append(of_phantoms(predictor, split, limit=limit))
        if out is not None:
            found[-1].save(out / "embedded" / split)
    return found
