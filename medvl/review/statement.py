"""What humans decided about one study as plain values, the base of every export."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from medvl.records import RESEARCH_USE
from medvl.review.record import Kept, Review, Status

SCHEMA = "medvl.review/1"


def statement(review: Review) -> dict[str, Any]:
    """The decisions of a study in plain JSON. It names reviewers and holds their comments."""
    answers = review.answers
    return {
        "schema": SCHEMA,
        "research_use": RESEARCH_USE,
        "case_id": answers.case_id,
        "results_sha256": answers.sha256,
        "bundle": {"name": answers.bundle, "sha256": answers.bundle_sha256},
        "status": str(review.status),
        "status_by": review.by,
        "status_role": review.role,
        "status_at": _when(review.at) if review.at else None,
        "status_comment": review.comment,
        "version": review.version,
        "undecided": [item.name for item in review.missing],
        "findings": [
            {
                "item": item.name,
                "finding": item.finding,
                "label": item.label,
                "region": item.region,
                "model": {"verdict": item.verdict, "score": item.score},
                "human": _said(review.decisions.get(item.name)),
            }
            for item in answers.items
        ],
        "added": [
            {"item": k.decision.item, "finding": k.decision.finding or None, "label": k.decision.label, "human": _said(k)}
            for k in review.added
        ],
        "report": _written(review),
        "reading_seconds": {who: round(seconds, 1) for who, seconds in sorted(review.seconds.items())},
    }


def _written(review: Review) -> dict[str, Any] | None:
    """What a human wrote for the report, and whether a signature stands under it."""
    text = review.text
    if text is None:
        return None
    return {
        "final": review.status == Status.signed,
        "text": text.text,
        "proposed_by_software": text.proposed or None,
        "changed_by_human": text.changed,
        "by": text.by,
        "role": text.role,
        "at": _when(text.at),
        "version": text.version,
    }


def _said(kept: Kept | None) -> dict[str, Any] | None:
    if kept is None:
        return None
    decision = kept.decision
    return {
        "choice": str(decision.choice),
        "presence": decision.presence,
        "region": decision.region or None,
        "comment": decision.comment,
        "by": kept.by,
        "role": kept.role,
        "at": _when(kept.at),
        "version": kept.version,
    }


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
