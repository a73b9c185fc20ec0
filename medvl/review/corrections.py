"""What humans decided as labels for training: one row a finding and region, no name and no free text in it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import sqlalchemy as sa

from medvl.errors import ConfigError
from medvl.review.book import FILE
from medvl.review.desk import Reviews
from medvl.review.record import Choice, Kept, Status
from medvl.review.state import kept_from
from medvl.review.tables import decisions, studies

COLUMNS = (
    "case_id",
    "region",
    "finding",
    "label",
    "source",
    "choice",
    "model",
    "reviewer",
    "decided_at",
    "signed",
    "bundle_sha256",
    "results_sha256",
)


def corrections(folder: Path, *, unsigned: bool = False, key_file: Path | None = None) -> pd.DataFrame:
    """The labels, sorted by case, region and finding; columns as in `COLUMNS`.

    `label` is ``present`` or ``absent``; a finding that a human left undecided has no row, and neither has one that was added in
    free words, which may name the patient. A finding that was moved to another region is present there and absent where the
    model saw it, unless a human said something else of that place. `model` is the model's verdict, empty for an addition.

    Args:
        folder: results folder.
        unsigned: also from studies that are not signed, and on earlier answers; the latest decision on a place counts.
        key_file: see `Reviews`.

    Raises:
        ConfigError: nobody reviewed anything in this folder.
    """
    with opened(folder, key_file) as desk:
        with desk.reading() as db:
            kept = [kept_from(row) for row in db.execute(sa.select(decisions)).mappings()]
            done = db.execute(sa.select(studies.c.case_id, studies.c.results).where(studies.c.status == Status.signed))
            signed = {(row.case_id, row.results) for row in done}
        counted = [k for k in kept if unsigned or (k.case_id, k.results) in signed]
        rows: dict[tuple[str, str, str], tuple[int, dict[str, object]]] = {}
        for k in sorted(counted, key=lambda k: k.at):
            stamps = {
                "source": "review",
                "choice": str(k.decision.choice),
                "model": k.said,
                "reviewer": desk.pseudonym(k.by),
                "decided_at": datetime.fromtimestamp(k.at, UTC).isoformat(timespec="seconds"),
                "signed": (k.case_id, k.results) in signed,
                "bundle_sha256": k.bundle,
                "results_sha256": k.results,
            }
            for weight, region, label in _labels(k):
                place = (k.case_id, region, k.decision.finding)
                if weight >= rows.get(place, (0, {}))[0]:
                    rows[place] = (weight, dict(zip(COLUMNS[:3], place, strict=True)) | {"label": label} | stamps)
    return pd.DataFrame([row for _, (_, row) in sorted(rows.items())], columns=list(COLUMNS))


def opened(folder: Path, key_file: Path | None = None) -> Reviews:
    """The reviews of a folder in which somebody reviewed something.

    Raises:
        ConfigError: nobody did.
    """
    if not (folder / FILE).is_file():
        raise ConfigError(f"nobody reviewed anything in {folder}: it holds no {FILE}; open it with `medvl view`")
    return Reviews(folder, key_file=key_file)


def _labels(kept: Kept) -> Iterator[tuple[int, str, str]]:
    """How directly it was said, region and label; nothing where there is no label in it."""
    decision = kept.decision
    if decision.choice == Choice.withdrawn or not decision.finding or not decision.region:
        return
    if kept.asked_of and decision.region != kept.asked_of:
        yield 2, kept.asked_of, "absent"
        yield 1, decision.region, decision.presence
    elif decision.presence != "undecided":
        yield 2, decision.region, decision.presence
