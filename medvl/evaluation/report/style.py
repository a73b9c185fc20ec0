"""One look for all figures: small, plain, in colours that colour-blind readers can tell apart (Okabe and Ito 2008)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY, LIGHT, INK = "#0072B2", "#D55E00", "#009E73", "#767676", "#D9D9D9", "#222222"
WIDTH = 9.0
RULES: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.7,
    "axes.titlelocation": "left",
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "medvl",
}


@contextmanager
def styled() -> Iterator[None]:
    """Figures made inside look alike."""
    import matplotlib

    with matplotlib.rc_context(RULES):
        yield


def grid_of(n: int, columns: int, height: float, *, square: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with `n` small panels in rows of `columns`; unused places stay empty."""
    from matplotlib.figure import Figure

    columns = min(columns, max(n, 1))
    rows = -(-n // columns)
    width = WIDTH if columns > 2 else WIDTH * columns / 4 + 1
    figure = Figure(figsize=(width, rows * height + 0.45), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=square, sharey=square).flat)
    for axes in panels[n:]:
        axes.set_visible(False)
    return figure, panels[:n]


def forest(axes: Axes, rows: Sequence[tuple[str, float, float | None, float | None, str]], *, null: float | None) -> None:
    """Values with intervals, top down: (label, value, low, high, what stands at the right); a row of NaN is a heading."""
    for k, (label, value, low, high, told) in enumerate(rows):
        y = len(rows) - 1 - k
        heading = value != value  # noqa: PLR0124 - NaN
        axes.text(
            -0.02, y, label, transform=axes.get_yaxis_transform(), ha="right", va="center", weight="bold" if heading else None
        )
        axes.text(1.02, y, told, transform=axes.get_yaxis_transform(), ha="left", va="center", color=GREY, fontsize=7.5)
        if heading:
            continue
        if low is not None and high is not None:
            axes.plot([low, high], [y, y], color=BLUE, linewidth=1.3, solid_capstyle="butt")
        axes.plot([value], [y], "s", color=BLUE, markersize=4.5)
    if null is not None:
        axes.axvline(null, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=LIGHT, linewidth=0.5)
    axes.set_axisbelow(True)


def as_png(figure: Figure) -> bytes:
    """The figure as PNG, two points a CSS pixel."""
    return _saved(figure, "png", dpi=150)


def as_svg(figure: Figure) -> bytes:
    """The figure as SVG, the same bytes for the same figure."""
    return _saved(figure, "svg", metadata={"Date": None})


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    with styled():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, so that every file of it is the same
        figure.savefig(buffer, format=kind, facecolor="white", bbox_inches="tight", pad_inches=0.06, **options)
    return buffer.getvalue()
