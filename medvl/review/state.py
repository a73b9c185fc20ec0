"""Rows of the database as the nouns of a review, and back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from medvl.review.answers import Answers
from medvl.review.record import Choice, ConflictError, Decision, Kept, ReportText, Review, ReviewError, Status
from medvl.review.tables import decisions, studies, texts, times


def review_of(db: Connection, answers: Answers) -> Review:
    """A study as the database has it now, with regard to these answers."""
    case = answers.case_id
    row = db.execute(sa.select(studies).where(studies.c.case_id == case)).mappings().first()
    found = [kept_from(r) for r in db.execute(sa.select(decisions).where(decisions.c.case_id == case)).mappings()]
    mine = [kept for kept in found if kept.results == answers.sha256]
    spent = db.execute(sa.select(times.c.by, times.c.seconds).where(times.c.case_id == case, times.c.results == answers.sha256))
    told = db.execute(sa.select(texts).where(is_text(answers))).mappings().first()
    review = Review(
        answers,
        decisions={k.decision.item: k for k in mine if k.decision.choice != Choice.withdrawn},
        versions={k.decision.item: k.version for k in mine},
        seconds={str(by): float(seconds) for by, seconds in spent},
        text=text_from(told) if told is not None and told["text"] else None,
        text_version=int(told["version"]) if told is not None else 0,
        earlier=any(kept.results != answers.sha256 for kept in found),
        version=int(row["version"]) if row is not None else 0,
    )
    if row is None or row["results"] != answers.sha256:
        return review
    last = {name: row[name] for name in ("by", "role", "at", "comment")}
    return Review(**{**vars(review), **last, "status": Status(row["status"])})


def version_of(db: Connection, case_id: str) -> int:
    """The version of a study; 0 where nothing was saved about it."""
    return int(db.execute(sa.select(studies.c.version).where(studies.c.case_id == case_id)).scalar() or 0)


def is_item(answers: Answers, item: str) -> sa.ColumnElement[bool]:
    """The condition that names one decision."""
    same = (decisions.c.case_id == answers.case_id) & (decisions.c.results == answers.sha256)
    return same & (decisions.c.item == item)


def is_text(answers: Answers) -> sa.ColumnElement[bool]:
    """The condition that names the report text of a study."""
    return (texts.c.case_id == answers.case_id) & (texts.c.results == answers.sha256)


def text_from(row: Mapping[Any, Any]) -> ReportText:
    """A report text from columns."""
    return ReportText(**{name: row[name] for name in ("text", "proposed", "by", "role", "at", "version")})


def kept_of(db: Connection, answers: Answers, item: str) -> Kept | None:
    """The decision on an item; None where there was none."""
    row = db.execute(sa.select(decisions).where(is_item(answers, item))).mappings().first()
    return kept_from(row) if row is not None else None


def row_of(kept: Kept) -> dict[str, Any]:
    """A decision as columns."""
    stamps = {name: value for name, value in vars(kept).items() if name != "decision"}
    return {**stamps, **vars(kept.decision), "choice": str(kept.decision.choice)}


def kept_from(row: Mapping[Any, Any]) -> Kept:
    """A decision from columns."""
    said = {name: row[name] for name in ("item", "presence", "region", "finding", "label", "comment")}
    stamps = {name: row[name] for name in ("case_id", "results", "bundle", "said", "asked_of", "by", "role", "at", "version")}
    return Kept(decision=Decision(choice=Choice(row["choice"]), **said), **stamps)


def expect(old: Kept | None, expected: int) -> None:
    """Refuse what was decided with an older decision in sight."""
    if (old.version if old else 0) != expected:
        what = "nothing is decided" if old is None else spoken(old.decision)
        by, at = (old.by, old.at) if old else ("somebody", time.time())
        raise ConflictError(by, at, what, old)


def expect_text(now: Review, expected: int) -> None:
    """Refuse a text that was written with an older one in sight."""
    if now.text_version != expected:
        by, at = (now.text.by, now.text.at) if now.text else (now.by or "somebody", now.at or time.time())
        raise ConflictError(by, at, "the report text was saved" if now.text else "the report text was taken back")


def expect_study(now: Review, expected: int) -> None:
    """Refuse what was decided with an older state of the study in sight."""
    if now.version != expected:
        last = max(now.decisions.values(), key=lambda kept: kept.at, default=None)
        what = f"the last decision is: {spoken(last.decision)}" if last else f"the study is {now.status}"
        raise ConflictError(now.by, now.at, what, last)


def spoken(decision: Decision) -> str:
    """A decision in a few words."""
    word = {
        Choice.accept: "accepted as",
        Choice.reject: "rejected, so",
        Choice.correct: "corrected to",
        Choice.added: "added as",
        Choice.withdrawn: "taken back; it was",
    }[decision.choice]
    place = f" in {decision.region.replace('_', ' ')}" if decision.region else ""
    return f"{decision.label} {word} {decision.presence}{place}" + (f" ({decision.comment})" if decision.comment else "")


def reason_given(text: str) -> str:
    """The reason, which there must be."""
    if not text.strip():
        raise ReviewError("say why: a reason is needed and is kept")
    return text.strip()
