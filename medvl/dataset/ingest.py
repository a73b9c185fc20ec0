"""A checked manifest made into a dataset folder; a run that was stopped anywhere goes on, and ends with the same data.

Each study is converted by itself and noted when its volume is on the disk (`convert`). `dataset.json` is written last and taken
away first, so a folder that has one is whole.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medvl import __version__
from medvl.data.identity import folder_key, keyed_id
from medvl.dataset import build
from medvl.dataset.card import write_card
from medvl.dataset.columns import Mapped
from medvl.dataset.convert import Converter, Task
from medvl.dataset.labels import Given, Reviews, open_counts, settled
from medvl.dataset.leaks import Facts, find_pairs
from medvl.dataset.manifest import Manifest, Row
from medvl.dataset.opened import Dataset, open_dataset
from medvl.dataset.pool import Lost, run
from medvl.dataset.schema import DATASET, JOURNAL, SCHEMA, VOLUMES
from medvl.dataset.scrub import counted
from medvl.dataset.splits import Policy, Splits, Who, assign
from medvl.dataset.summary import summary
from medvl.dataset.web import Web
from medvl.errors import ConfigError
from medvl.files import replace_text
from medvl.records import RESEARCH_USE

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Options:
    """How to make it.

    Args:
        root: folder that paths of the manifest are relative to.
        clean: take identifiers out of reports, and ages above 90 down to 90.
        seed: of drawn splits.
        held_out: sites whose patients are for testing.
        policy: what to do with given splits that part what may be one patient.
        reviews: what humans decided in the viewer.
        web: the PACS, where studies lie.
        workers: processes; 0 converts in this one.
        timeout_s: longest time for one study.
        card: draw the data card.
        patient_key: of the site; each case then carries the links of its patient (`medvl.data.person`).
    """

    root: Path
    clean: bool = True
    seed: int = 0
    held_out: tuple[str, ...] = ()
    policy: Policy = "refuse"
    reviews: tuple[Reviews, ...] = ()
    web: Web | None = None
    workers: int = 1
    timeout_s: float = 600.0
    card: bool = True
    patient_key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Made:
    """What a run did: the dataset, how many studies were taken over from an earlier run, and how many were left out."""

    dataset: Dataset
    n_known: int
    rejects: Mapping[str, int] = field(default_factory=dict)


def ingest(manifest: Manifest, mapped: Mapped, out: Path, options: Options, progress: Progress | None = None) -> Made:
    """Convert what is new, put everything together, and write the card.

    Raises:
        ConfigError: another run is at work on the folder, a site that is to be held out is not there, or no study can be used.
    """
    unknown = [site for site in options.held_out if all(row.site != site for row in manifest.rows)]
    if unknown:
        raise ConfigError(f"no row is of the site {unknown[0]!r}; sites are {', '.join(sorted({r.site for r in manifest.rows}))}")
    for folder in (VOLUMES, JOURNAL):
        (out / folder).mkdir(parents=True, exist_ok=True)
    with _alone(out):
        key = folder_key(out / "key")
        reviews = tuple(review.key for review in options.reviews)
        make = Converter(out, options.root.resolve(), key, options.clean, reviews, options.web, options.patient_key)
        tasks = [_task(row, key) for row in manifest.rows]
        notes, n_known = _converted(make, tasks, options, progress)
        whole = _Whole(manifest, mapped, out, options, key)
        dataset, rejects = whole.write([notes[task.case_id] for task in tasks])
        _prune(out, {str(row) for row in dataset.rows["case_id"]}, {task.case_id for task in tasks})
    return Made(dataset, n_known, rejects)


def _task(row: Row, key: bytes) -> Task:
    case_id = keyed_id(key, f"case:{row.patient}:{row.study}:{row.phase}")
    return Task(case_id, row.study, row.phase, row.report, row.identity, row.patient)


def _converted(
    make: Converter, tasks: Sequence[Task], options: Options, progress: Progress | None
) -> tuple[dict[str, dict[str, Any]], int]:
    """The note of every task, and how many were there already."""
    notes = {task.case_id: note for task in tasks if (note := make.known(task)) is not None}
    n_known, todo = len(notes), [task for task in tasks if task.case_id not in notes]
    told = progress or (lambda _done, _total: None)
    told(n_known, len(tasks))
    for k, made in run(make, todo, options.workers, options.timeout_s):
        case_id = todo[k].case_id
        if isinstance(made, Lost):
            notes[case_id] = {"case_id": case_id, "code": made.code, "message": made.message}
            make.keep(notes[case_id])
        else:
            notes[case_id] = made
        told(len(notes), len(tasks))
    return notes, n_known


@dataclass(frozen=True)
class _Whole:
    """All notes put together."""

    manifest: Manifest
    mapped: Mapped
    out: Path
    options: Options
    key: bytes

    def write(self, notes: Sequence[Mapping[str, Any]]) -> tuple[Dataset, dict[str, int]]:
        """Write everything but the volumes; the dataset, and counts of what was left out by code."""
        kept, refused = self._sorted(notes)
        lines = build.reject_lines(self.manifest.issues, refused)
        rejects = dict(sorted(Counter(str(line["code"]) for line in lines).items()))
        (self.out / DATASET).unlink(missing_ok=True)
        build.write_rejects(self.out, lines)
        if not kept:
            raise ConfigError(
                f"none of the {len(notes)} studies can be used ({', '.join(rejects)}); see rejects.csv in the dataset"
            )
        cases, splits, leaks = self._cases(kept)
        frame = build.frame_of(cases, self.key, self.options.clean)
        build.write_frame(self.out, frame)
        build.write_leaks(self.out, leaks)
        facts = {
            "schema": SCHEMA,
            "software": f"medvl {__version__}",
            "research_use": RESEARCH_USE,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "sha256": build.data_hash(frame),
            "mapping": [[column, what] for column, what in self.mapped.lines()],
            "notes": list(self.manifest.notes),
            "options": self._options(),
            "rows": {"manifest": self.manifest.n_rows, "used": len(cases), "left_out": rejects},
            "leaks": build.leak_summary(leaks, self.options.policy),
            "splits": {"moved": dict(splits.moved), "seen_at_both_sites": splits.both_sites, "largest_group": splits.largest},
            "labels": self._labels(cases),
            "removed": counted(note["removed"] for _, note in kept),
            "summary": summary(frame),
        }
        if self.options.card:
            write_card(self.out, facts, frame)
        replace_text(self.out / DATASET, json.dumps(facts, indent=1, allow_nan=False) + "\n")
        return open_dataset(self.out), rejects

    def _sorted(self, notes: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[tuple[Row, Mapping[str, Any]]]]:
        """Rows that were converted, and rows that were not or give a series that an earlier row gave."""
        kept, refused, taken = [], [], dict[tuple[str, str], int]()
        for row, note in zip(self.manifest.rows, notes, strict=True):
            if "code" in note:
                refused.append((row, note))
                continue
            first = taken.setdefault((row.study, note["series"]), row.number)
            if first == row.number:
                kept.append((row, note))
            else:
                message = (
                    f"the study has no series of its own for this phase: it gives that of row {first}; give the series' folder"
                )
                refused.append((row, {**note, "code": "no_volume", "message": message}))
        return kept, refused

    def _cases(self, kept: Sequence[tuple[Row, Mapping[str, Any]]]) -> tuple[list[build.Case], Splits, list[dict[str, Any]]]:
        facts = [Facts(r.patient, r.accession, n["sha256"], n["picture"], n["report"]) for r, n in kept]
        pairs = find_pairs(facts)
        who = [Who(row.patient, row.split, row.site) for row, _ in kept]
        options = self.options
        splits = assign(who, pairs, seed=options.seed, held_out=options.held_out, policy=options.policy)
        given = [self._given(row, note) for row, note in kept]
        cases = [build.Case(*pair, g, s) for pair, g, s in zip(kept, given, splits.of, strict=True)]
        notes, told = [note for _, note in kept], [row.split for row, _ in kept]
        found = sorted([*pairs, *splits.conflicts], key=lambda p: (p.first, p.second, p.kind))
        return cases, splits, build.leak_lines(found, notes, splits.of, told, options.policy)

    def _given(self, row: Row, note: Mapping[str, Any]) -> Given:
        reviewed = [r.labels.get(case_id, {}) for r, case_id in zip(self.options.reviews, note["reviewed"], strict=True)]
        return settled(row.labels, note["report"], reviewed)

    def _labels(self, cases: Sequence[build.Case]) -> dict[str, Any]:
        """How labels came in, and what could not be used of them."""
        sources = Counter(source for case in cases for source in case.given.sources.values())
        reviews = []
        for k, review in enumerate(self.options.reviews):
            ours = {case.note["reviewed"][k] for case in cases}
            hits = {case_id for case_id in review.labels if case_id in ours}
            used = sum(len(review.labels[case_id]) for case_id in hits)
            reviews.append(
                {
                    "labels": review.n,
                    "studies": len(hits),
                    "used": used,
                    "unmatched": review.n - used,
                    "unknown_finding": review.left,
                }
            )
        return {
            "sources": dict(sorted(sources.items())),
            "region_not_known": open_counts(c.given for c in cases),
            "reviews": reviews,
        }

    def _options(self) -> dict[str, Any]:
        o = self.options
        return {"deidentified": o.clean, "split_seed": o.seed, "held_out_sites": list(o.held_out), "leak_policy": o.policy}


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder; the kernel lets go of it however the process ends."""
    with (out / JOURNAL / ".lock").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError("another medvl ingest is at work on this dataset; wait for it, or take another --out") from None
        yield


def _prune(out: Path, used: set[str], asked: set[str]) -> None:
    """Remove volumes and notes that nothing refers to: rows that left the manifest, and parts of killed runs."""
    for path in (out / VOLUMES).iterdir():
        if path.stem not in used:
            path.unlink()
    for path in (out / JOURNAL).glob("*.json"):
        if path.stem not in asked:
            path.unlink()
    for folder in (out, out / JOURNAL):
        for path in folder.glob(".*.part"):
            path.unlink()
    for path in (out / JOURNAL).glob(".*.fetch"):
        shutil.rmtree(path, ignore_errors=True)
