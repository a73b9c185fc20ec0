"""Parts of pages: banners, pictures with heat, tables of answers. Only drawing; nothing here decides anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import Rectangle

from medvl.delivery.planes import Plane, View, ranked
from medvl.delivery.told import Answer

_FONT = "DejaVu Sans"
VERDICTS = {"present": "Present", "undecided": "Undecided", "absent": "Absent"}


@dataclass(frozen=True)
class Theme:
    """Colours of a page."""

    paper: str
    ink: str
    faint: str
    line: str
    banner: str
    banner_ink: str
    present: str
    undecided: str
    absent: str

    def verdict(self, name: str) -> str:
        """Colour of a verdict; its word is always written beside it."""
        return {"present": self.present, "undecided": self.undecided}.get(name, self.absent)


DARK = Theme("#101418", "#e8eaed", "#9aa3ad", "#343c45", "#f2b705", "#101418", "#ff8a65", "#f2d06b", "#8fb8de")
LIGHT = Theme("#ffffff", "#16191d", "#5c6670", "#c9cfd6", "#f2b705", "#101418", "#b3261e", "#8a6100", "#2b5f8a")


@contextmanager
def settings() -> Iterator[None]:
    """The library's own defaults, whatever the user has set, so that equal input gives equal pictures."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"font.family": _FONT, "pdf.fonttype": 42, "text.parse_math": False, "svg.hashsalt": "medvl"})
        yield


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(_FONT)).get_charmap())


def words(text: str, otherwise: str = "") -> str:
    """The text, or what is to stand for it where the font lacks a letter of it."""
    if all(ord(letter) in _glyphs() for letter in text):
        return text
    return otherwise or "".join(letter if ord(letter) in _glyphs() else "?" for letter in text)


def blank(figure: Figure, box: tuple[float, float, float, float]) -> Axes:
    """An empty field of a page, left, bottom, width, height in shares of it; its own units run from 0 to 1, top left first."""
    axes = figure.add_axes(box)
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(1, 0)
    return axes


def banner(figure: Figure, theme: Theme, height: float, size: float) -> None:
    """The strip at the top of every page."""
    axes = blank(figure, (0, 1 - height, 1, height))
    axes.add_patch(Rectangle((0, 0), 1, 1, color=theme.banner))
    text = "RESEARCH USE ONLY    Not a medical device. Not for diagnosis or treatment. Not reviewed by a physician."
    axes.text(0.5, 0.52, text, color=theme.banner_ink, size=size, weight="bold", ha="center", va="center")


def picture(axes: Axes, plane: Plane, theme: Theme, size: float) -> None:
    """One plane: grey values, heat over them, a mark at the peak, and letters for the sides."""
    axes.imshow(plane.grey, cmap="gray", vmin=0, vmax=1, extent=plane.extent_mm, interpolation="bilinear")
    if plane.heat is not None:
        colours = mpl.colormaps["inferno"](plane.heat)
        colours[..., 3] = 0.62 * np.clip((plane.heat - 0.25) / 0.5, 0, 1)
        axes.imshow(colours, extent=plane.extent_mm, interpolation="bilinear")
    _mark(axes, plane)
    left, right, top, bottom = plane.edges
    style: dict[str, Any] = {"color": "#ffffff", "size": size, "weight": "bold", "transform": axes.transAxes}
    axes.text(0.02, 0.5, left, ha="left", va="center", **style)
    axes.text(0.98, 0.5, right, ha="right", va="center", **style)
    axes.text(0.5, 0.98, top, ha="center", va="top", **style)
    axes.text(0.5, 0.02, bottom, ha="center", va="bottom", **style)
    axes.set_facecolor("black")
    axes.set_xticks([])
    axes.set_yticks([])
    x0, x1, y0, y1 = plane.extent_mm
    half = max(abs(x1 - x0), abs(y1 - y0)) / 2
    up = 1 if y1 > y0 else -1
    axes.set_xlim((x0 + x1) / 2 - half, (x0 + x1) / 2 + half)
    axes.set_ylim((y0 + y1) / 2 - up * half, (y0 + y1) / 2 + up * half)
    for spine in axes.spines.values():
        spine.set_color(theme.line)


def _mark(axes: Axes, plane: Plane) -> None:
    """Four short lines around the point, which leave it free."""
    if plane.heat is None:
        return
    x, y = plane.point_mm
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        axes.plot([x + 9 * dx, x + 22 * dx], [y + 9 * dy, y + 22 * dy], color="#5ff0ff", linewidth=1.2)


def view_title(view: View) -> str:
    """What is written above a view."""
    title = words(view.title, view.answer.key.replace("_", " ") if view.answer else "")
    if view.answer is None or view.answer.score is None:
        return title
    return f"{title}: {VERDICTS[view.answer.verdict].lower()}, {percent(view.answer.score)}"


def percent(share: float) -> str:
    """A probability for people: never 0 or 100."""
    number = f"{100 * share:.0f}" if 0.01 <= share <= 0.99 else ("< 1" if share < 0.5 else "> 99")
    return f"{number}\N{NO-BREAK SPACE}%"


def rows(answers: Sequence[Answer]) -> list[tuple[Answer, str]]:
    """Answers in order of weight, each with the note that stands beside it."""
    return [(answer, _note(answer)) for answer in ranked(answers)]


def _note(answer: Answer) -> str:
    if answer.reasons:
        return answer.reasons[0].code.replace("_", " ")
    return ""


def table(axes: Axes, shown: Sequence[tuple[Answer, str]], theme: Theme, row: float, size: float) -> None:
    """A table of answers in a field of `blank`: finding, place, verdict, probability with its threshold, note.

    Rows are `row` high, as a share of the field; letters have `size` points.
    """
    columns = {"Finding": 0.0, "Where": 0.335, "Verdict": 0.475, "Probability": 0.595, "Note": 0.8}
    for name, x in columns.items():
        axes.text(x, row * 0.5, name, color=theme.faint, size=size, va="center", weight="bold")
    axes.plot([0, 1], [row, row], color=theme.line, linewidth=1)
    for k, (answer, note) in enumerate(shown):
        y = row * (k + 1.5)
        colour = theme.verdict(answer.verdict)
        weight = "bold" if answer.verdict == "present" else "normal"
        label = words(answer.label, answer.key.replace("_", " "))
        axes.text(0.0, y, _cut(label, 36), color=theme.ink, size=size, va="center", weight=weight)
        axes.text(columns["Where"], y, _cut(words(answer.place), 16), color=theme.ink, size=size, va="center")
        axes.text(columns["Verdict"], y, VERDICTS[answer.verdict], color=colour, size=size, va="center", weight=weight)
        _bar(axes, answer, theme, (columns["Probability"], y, 0.115, row * 0.34), size)
        axes.text(columns["Note"], y, _cut(note, 24), color=theme.faint, size=size * 0.9, va="center")
        axes.plot([0, 1], [y + row / 2, y + row / 2], color=theme.line, linewidth=0.4)


def _bar(axes: Axes, answer: Answer, theme: Theme, box: tuple[float, float, float, float], size: float) -> None:
    """The probability as a bar, the undecided band and the threshold marked, and as a number."""
    x, y, width, height = box
    if answer.score is None:
        axes.text(x, y, "not given", color=theme.faint, size=size * 0.9, va="center")
        return
    axes.add_patch(Rectangle((x, y - height / 2), width, height, facecolor="none", edgecolor=theme.line, linewidth=0.6))
    if answer.low is not None and answer.high is not None:
        band = Rectangle((x + width * answer.low, y - height / 2), width * (answer.high - answer.low), height)
        band.set(facecolor=theme.line, edgecolor="none")
        axes.add_patch(band)
    axes.add_patch(Rectangle((x, y - height / 4), width * answer.score, height / 2, color=theme.verdict(answer.verdict)))
    if answer.threshold is not None:
        at = x + width * answer.threshold
        axes.plot([at, at], [y - height * 0.75, y + height * 0.75], color=theme.ink, linewidth=1)
    axes.text(x + width + 0.012, y, percent(answer.score), color=theme.ink, size=size, va="center")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


_INTERVAL = "in brackets: the model's 95\u00a0% interval"


def survival_text(risk: Any) -> str:
    """The survival estimate in one sentence; empty without one."""
    if not risk:
        return ""
    endpoint = str(risk["endpoint"])
    endpoint = endpoint[:1].upper() + endpoint[1:]
    between = {days: f" ({percent(low)} to {percent(high)})" for days, (low, high) in (risk.get("interval") or {}).items()}
    parts = [f"{percent(p)}{between.get(days, '')} at {_years(int(days))}" for days, p in (risk["survival"] or {}).items()]
    noted = "; ".join(str(r["message"]) for r in risk["reasons"])
    if not parts:
        return words(f"{endpoint}: no estimate" + (f" ({noted})." if noted else "."))
    rank = f"; risk percentile {risk['percentile']:.0f} of the validation patients" if risk["percentile"] is not None else ""
    told = f" ({_INTERVAL})" if between else ""
    return words(f"{endpoint}: {', '.join(parts)}{told}{rank}." + (f" Noted: {noted}." if noted else ""))


def undecided_text(answers: Sequence[Answer]) -> list[str]:
    """Why answers are undecided: a line for each place and reason, with all findings that it holds for."""
    found: dict[tuple[str, str], list[str]] = {}
    for answer in ranked(answers):
        for reason in answer.reasons:
            found.setdefault((answer.place, reason.message), []).append(words(answer.label, answer.key.replace("_", " ")))
    return [
        words(f"{place[:1].upper()}{place[1:]}: {', '.join(labels)}: {message}") for (place, message), labels in found.items()
    ]


def _years(days: int) -> str:
    years = days / 365
    return f"{years:.0f} year{'s' if years >= 1.5 else ''}" if abs(years - round(years)) < 0.02 and years >= 1 else f"{days} days"
