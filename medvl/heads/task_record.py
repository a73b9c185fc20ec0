"""The whole record of a protocol of downstream tasks: what was asked of whom, what was found, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from medvl import __version__
from medvl.errors import ConfigError
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.leaks import leaks
from medvl.evaluation.protocol import hashed
from medvl.evaluation.results import leak_warnings
from medvl.heads.task_list import Graded, TenTasks
from medvl.heads.ten_tasks import SPLITS, run_ten_tasks
from medvl.records import RESEARCH_USE

SCHEMA = "medvl.ten_tasks/1"
MANY_LOST = 0.2


@dataclass(frozen=True, eq=False)
class Encoder:
    """A model and the cohorts as it sees them.

    Args:
        name, sha256: of the bundle; cohorts: by split, one embedded cohort for each scan of the patients.
    """

    name: str
    sha256: str
    cohorts: Mapping[str, Sequence[Embedded]]

    def must_have_made(self) -> None:
        """Nothing where every cohort was embedded by this model.

        Raises:
            ConfigError: one was embedded by another.
        """
        for table in (table for split in self.cohorts.values() for table in split):
            made = table.source.get("model_sha256")
            if made is not None and made != self.sha256:
                raise ConfigError(
                    f"the {table.source.get('split', '')} cohort was embedded by {table.source.get('model')} ({made[:12]}), "
                    f"not by {self.name} ({self.sha256[:12]}); embed it with the bundle that is evaluated"
                )


def by_split(tables: Sequence[Embedded]) -> dict[str, list[Embedded]]:
    """Embedded cohorts under the split that each says it is of; several of one split are several scans of its patients.

    Raises:
        ConfigError: a cohort tells no split, or another one than train, validation and test.
    """
    found: dict[str, list[Embedded]] = {}
    for table in tables:
        split = str(table.source.get("split", ""))
        if split not in SPLITS:
            raise ConfigError(f"an embedded cohort is of split {split or 'unknown'}; heads need {', '.join(SPLITS)}")
        found.setdefault(split, []).append(table)
    return found


def evaluate_tasks(protocol: TenTasks, encoder: Encoder, labels: pd.DataFrame, second: Encoder | None = None) -> dict[str, Any]:
    """Every task of the protocol measured or a stated NA, beside its baselines; JSON-ready.

    Args:
        protocol: what is asked.
        encoder: whose features the heads learn from.
        labels: one row a lesion: `patient_id`, `region` (may be absent where a patient has one region of the kind), and labels.
        second: another encoder on the same patients, such as one trained on these labels alone.

    Raises:
        ConfigError: a split is missing, a patient is in two splits, the table has no lesion of a split, or a cohort was embedded
            by another model.
    """
    for one in (encoder, second):
        if one is not None:
            one.must_have_made()
    found = run_ten_tasks(protocol, encoder.cohorts, labels, second=None if second is None else second.cohorts)
    test = encoder.cohorts["test"][0]
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "software": f"medvl {__version__}",
        "use": RESEARCH_USE,
        "protocol": {"hash": protocol.hash, **protocol.model_dump(mode="json")},
        "hashes": {"protocol": protocol.hash, "labels": label_hash(protocol, labels)},
        "model": {"name": encoder.name, "sha256": encoder.sha256},
        "source": {name: [dict(e.source) for e in encoder.cohorts[name]] for name in SPLITS},
        **found,
        "leaks": leaks(test, _others(encoder.cohorts), protocol.leaks),
    }
    if second is not None:
        told["second"] = {"name": second.name, "sha256": second.sha256}
    return told | {"warnings": _warnings(told)}


def _others(cohorts: Mapping[str, Sequence[Embedded]]) -> dict[str, Embedded]:
    several = {split: len(cohorts[split]) > 1 for split in SPLITS[:2]}
    return {
        f"{split}, scan {k + 1}" if several[split] else split: table
        for split in SPLITS[:2]
        for k, table in enumerate(cohorts[split])
    }


def label_hash(protocol: TenTasks, labels: pd.DataFrame) -> str:
    """SHA-256 over who, which region and every column of the table that the protocol reads, in an order of its own."""
    read = {"patient_id", "region", *protocol.clinical.numeric, *protocol.clinical.categorical, protocol.size or ""}
    for task in protocol.tasks:
        read |= {task.column} if isinstance(task, Graded) else {task.time, task.event}
        read |= set(task.where)
    columns = [c for c in sorted(read) if c in labels]
    rows = sorted(labels[columns].astype(str).to_numpy().tolist())
    return hashed({"columns": columns, "rows": rows})


def _warnings(told: Mapping[str, Any]) -> list[str]:
    """What a reader must know before the numbers."""
    out = leak_warnings(told["leaks"])
    for split, part in told["cohort"].items():
        lost = part["labelled"] - part["read"]
        if lost > MANY_LOST * part["labelled"]:
            out.append(
                f"{lost} of {part['labelled']} labelled lesions of {split} were not read; the numbers are of those that were"
            )
    out += [f"{name}: not measured ({task['na']})" for name, task in told["tasks"].items() if "na" in task]
    return out
