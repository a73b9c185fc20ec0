"""What a report is made of, before it is Markdown or HTML, and how numbers are written in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NA = "NA"


@dataclass(frozen=True)
class Text:
    """A paragraph, or a list of points; a warning stands out."""

    lines: tuple[str, ...]
    kind: str = "paragraph"


@dataclass(frozen=True)
class Table:
    """Rows of text under columns; all columns but the first `n_left` are numbers and stand to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    n_left: int = 1

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"a row of {len(wrong[0])} cells under {len(self.columns)} columns: {wrong[0][:2]}")


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure with the name of its file, what it shows in words, and its caption."""

    name: str
    figure: Figure
    alt: str
    caption: str


@dataclass(frozen=True, eq=False)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Text | Table | Picture, ...]


@dataclass(frozen=True, eq=False)
class Document:
    """A whole report: title, one line under it, sections."""

    title: str
    lead: str
    sections: tuple[Section, ...]


def paragraph(*lines: str) -> Text:
    """One paragraph."""
    return Text((" ".join(lines),))


def points(lines: Sequence[str], kind: str = "points") -> Text:
    """A list."""
    return Text(tuple(lines), kind)


def number(told: Any, digits: int = 3) -> str:
    """A value as text, NA where there is none."""
    value = told.get("value") if isinstance(told, Mapping) else told
    return NA if value is None else f"{value:.{digits}f}"


def span(told: Any, digits: int = 3) -> str:
    """A value with its interval: 0.812 [0.760, 0.855]; NA where there is none."""
    if not isinstance(told, Mapping) or told.get("value") is None:
        return NA
    if told.get("ci") is None:
        return f"{number(told, digits)} [NA]"
    low, high = told["ci"]
    return f"{told['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def percent(told: Any) -> str:
    """A share in per cent with its interval: 84 % [77, 90]."""
    if not isinstance(told, Mapping) or told.get("value") is None:
        return NA
    inside = "NA" if told.get("ci") is None else f"{100 * told['ci'][0]:.0f}, {100 * told['ci'][1]:.0f}"
    return f"{100 * told['value']:.0f} % [{inside}]"


def p_text(p: float | None) -> str:
    """A p value as journals print it."""
    if p is None:
        return NA
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def readable(code: str) -> str:
    """A snake_case name as words."""
    return code.replace("_", " ")
