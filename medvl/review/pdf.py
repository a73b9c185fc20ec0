"""A human's decision on one or more pages of PDF, for people. No identity of a patient is printed on it."""

from __future__ import annotations

import io
import textwrap
from datetime import UTC, datetime
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medvl.delivery.drawing import LIGHT, VERDICTS, blank, settings, words
from medvl.records import RESEARCH_USE
from medvl.review.record import Choice, Kept, Review, Status, moment

_A4 = (8.27, 11.69)
_MARGIN = 0.07
_FIRST, _NEXT = 40, 46  # lines of a page
_COLUMNS = {"Finding": 0.0, "Where": 0.28, "Model": 0.43, "Human": 0.54, "Decision": 0.65, "By": 0.78}
_WORDS = {Choice.accept: "accepted", Choice.reject: "rejected", Choice.correct: "corrected", Choice.added: "added"}
_BANNERS = {
    Status.signed: "SIGNED",
    Status.rejected: "STUDY REJECTED",
    Status.in_review: "IN REVIEW, NOT SIGNED",
    Status.unread: "UNREAD, NOT SIGNED",
}
_PLAIN: dict[str, dict[str, Any]] = {
    "comment": {"color": LIGHT.faint, "size": 7.5, "style": "italic"},
    "text": {"color": LIGHT.ink, "size": 8},
    "heading": {"color": LIGHT.ink, "size": 9.5, "weight": "bold"},
    "space": {"color": LIGHT.ink, "size": 8},
}
Line = tuple[str, tuple[str, ...]]  # kind, texts


def decision_pdf(review: Review) -> bytes:
    """The document; equal for equal input."""
    lines = _lines(review)
    pages = [lines[:_FIRST], *(lines[k : k + _NEXT] for k in range(_FIRST, len(lines), _NEXT))]
    last = max([review.at, review.text.at if review.text else 0.0, *(kept.at for kept in review.decisions.values())])
    about: dict[str, Any] = {
        "Title": "medvl reviewed findings",
        "Creator": "medvl",
        "Producer": "medvl",
        "CreationDate": datetime.fromtimestamp(last, UTC),
    }
    buffer = io.BytesIO()
    with settings(), PdfPages(buffer, metadata=about) as pdf:
        for number, page in enumerate(pages, 1):
            figure = Figure(_A4, dpi=150, facecolor=LIGHT.paper)
            _frame(figure, review, number, len(pages))
            top = 0.80 if number == 1 else 0.93
            if number == 1:
                _heading(figure, review)
            step = 0.0185
            height = step * (len(page) + 1)
            axes = blank(figure, (_MARGIN, top - height, 1 - 2 * _MARGIN, height))
            _table(axes, page, 1 / (len(page) + 1))
            pdf.savefig(figure)
    return buffer.getvalue()


def _frame(figure: Figure, review: Review, number: int, n_pages: int) -> None:
    """The strip at the top and the line at the foot of every page."""
    strip = blank(figure, (0, 0.97, 1, 0.03))
    strip.add_patch(Rectangle((0, 0), 1, 1, color=LIGHT.banner))
    text = f"{_BANNERS[review.status]}    {RESEARCH_USE}"
    strip.text(0.5, 0.52, text, color=LIGHT.banner_ink, size=8.5, weight="bold", ha="center", va="center")
    foot = blank(figure, (_MARGIN, 0.015, 1 - 2 * _MARGIN, 0.025))
    foot.text(0, 0.5, f"Case {words(review.answers.case_id)}", color=LIGHT.faint, size=7, va="center")
    foot.text(1, 0.5, f"Page {number} of {n_pages}", color=LIGHT.faint, size=7, va="center", ha="right")


def _heading(figure: Figure, review: Review) -> None:
    axes = blank(figure, (_MARGIN, 0.82, 1 - 2 * _MARGIN, 0.14))
    axes.text(0, 0.1, "Reviewed findings", color=LIGHT.ink, size=15, weight="bold", va="center")
    answers = review.answers
    told = [
        f"Case {answers.case_id}; answers SHA-256 {answers.sha256[:16]}…",
        f"Model {answers.bundle}, SHA-256 {answers.bundle_sha256[:16]}…",
        _status(review),
        f"{len(review.decisions)} decided, {len(review.missing)} that need a decision have none",
    ]
    told += [f"Reading time: {', '.join(_time(*pair) for pair in sorted(review.seconds.items()))}"] if review.seconds else []
    for k, line in enumerate(told):
        axes.text(0, 0.29 + 0.145 * k, words(line)[:110], color=LIGHT.faint, size=8, va="center")


def _status(review: Review) -> str:
    word = _BANNERS[review.status].capitalize()
    if not review.by or review.status == Status.unread:
        return word
    by = f"{word}: {review.by} ({review.role}), {moment(review.at)}"
    return f"{by}. {review.comment}" if review.comment else by


def _time(who: str, seconds: float) -> str:
    return f"{who} {seconds // 60:.0f} min {seconds % 60:.0f} s"


def _lines(review: Review) -> list[Line]:
    """Rows of the table: decided findings first, each with its comment below; then what nobody decided."""
    found: list[Line] = []
    for item in review.answers.items:
        if (kept := review.decisions.get(item.name)) is not None:
            found += _decided(kept, VERDICTS[item.verdict])
    for kept in review.added:
        found += _decided(kept, "-")
    for item in review.answers.items:
        if item.name not in review.decisions:
            told = (item.label, _place(item.region), VERDICTS[item.verdict], "", "not decided", "")
            found.append(("open", told))
    return found + _written(review)


def _written(review: Review) -> list[Line]:
    """The report text under a heading that says whether it is one."""
    text = review.text
    if text is None:
        return []
    final = "Report text, signed with the study" if review.status == Status.signed else "DRAFT of a report, not signed"
    origin = "edited from a draft by software" if text.proposed and text.changed else "as software drafted it"
    origin = origin if text.proposed else "written by a person"
    about = f"Version {text.version}, {origin}; saved by {text.by}, {moment(text.at)}"
    rows: list[Line] = [("space", ("",)), ("heading", (final,)), ("comment", (about,))]
    for part in text.text.splitlines():
        rows += [("text", (line,)) for line in textwrap.wrap(part, 105) or [""]]
    return rows


def _decided(kept: Kept, model: str) -> list[Line]:
    decision = kept.decision
    told = (decision.label, _place(decision.region), model, VERDICTS[decision.presence], _WORDS[decision.choice], kept.by)
    rows: list[Line] = [("decided", told)]
    if kept.asked_of and kept.asked_of != decision.region:
        rows.append(("comment", (f"The model gave it for the {_place(kept.asked_of)}.",)))
    rows += [("comment", (line,)) for line in textwrap.wrap(decision.comment, 110)]
    return rows


def _place(region: str) -> str:
    kind, _, side = region.rpartition("_")
    return f"{side} {kind.replace('_', ' ')}" if side in ("left", "right") else region.replace("_", " ")


def _table(axes: Axes, page: list[Line], row: float) -> None:
    for name, x in _COLUMNS.items():
        axes.text(x, row * 0.5, name, color=LIGHT.faint, size=7.5, va="center", weight="bold")
    axes.plot([0, 1], [row, row], color=LIGHT.line, linewidth=1)
    for k, (kind, texts) in enumerate(page):
        y = row * (k + 1.5)
        if kind in _PLAIN:
            axes.text(0.0 if kind == "heading" else 0.015, y, words(texts[0]), va="center", **_PLAIN[kind])
            continue
        for (name, x), text, most in zip(_COLUMNS.items(), texts, (30, 16, 10, 10, 12, 22), strict=True):
            colour = LIGHT.verdict(text.lower()) if name == "Human" and text else LIGHT.ink
            weight = "bold" if name == "Human" else "normal"
            shown = words(text) if len(text) <= most else words(text)[: most - 1] + "…"
            axes.text(x, y, shown, color=colour if kind == "decided" else LIGHT.faint, size=7.5, va="center", weight=weight)
        axes.plot([0, 1], [y - row / 2, y - row / 2], color=LIGHT.line, linewidth=0.4)
