"""Small charts in the dark theme; colours of Okabe and Ito, and never colour alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .study import DeletionRecord, FindingRecord

if TYPE_CHECKING:
    import altair as alt

    from medvl.survival.curves import Curve

SKY, ORANGE, GREEN, PURPLE, GREY, LIGHT = "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#8b98a5", "#d7dde3"
GROUP_COLOURS = (SKY, ORANGE, PURPLE, GREEN)
YEAR = 365.25


def score_strip(finding: FindingRecord) -> alt.LayerChart | alt.FacetChart | None:
    """The score on 0 to 1: undecided band, 95 % over wordings, 95 % interval, threshold, score; None without a score."""
    if finding.score is None:
        return None
    import altair as alt

    def across(low: float, high: float, **mark: Any) -> alt.Chart:
        rows = alt.Data(values=[{"low": low, "high": high}])
        bar: alt.Chart = alt.Chart(rows).mark_bar(**mark).encode(x=_x("low:Q"), x2="high:Q")
        return bar

    layers: list[alt.Chart] = []
    if finding.threshold_low is not None and finding.threshold_high is not None:
        layers.append(across(finding.threshold_low, finding.threshold_high, color=GREY, opacity=0.28, height=30))
    if finding.spread is not None:
        layers.append(across(finding.spread.low, finding.spread.high, color=ORANGE, opacity=0.75, height=3))
    if finding.interval is not None:
        layers.append(across(*finding.interval, color=SKY, opacity=0.8, height=11))
    if finding.threshold is not None:
        cut = alt.Chart(alt.Data(values=[{"at": finding.threshold}]))
        layers.append(cut.mark_tick(color=LIGHT, height=30, thickness=1).encode(x=_x("at:Q")))
    dot = alt.Chart(alt.Data(values=[{"at": finding.score}]))
    layers.append(dot.mark_point(color="white", filled=True, size=70, opacity=1).encode(x=_x("at:Q")))
    return alt.layer(*layers).properties(height=64)


def _x(field: str) -> alt.X:
    import altair as alt

    return alt.X(
        field, scale=alt.Scale(domain=[0, 1]), title=None, axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2f", grid=False)
    )


def deletion_bars(test: DeletionRecord) -> alt.LayerChart | alt.FacetChart:
    """Scores as the image is, without the marked place, and without as much elsewhere."""
    import altair as alt

    rows: list[dict[str, Any]] = [{"what": "as it is", "score": test.before}, {"what": "without the place", "score": test.after}]
    rows += [] if test.control is None else [{"what": "without another", "score": test.control}]
    order = [str(row["what"]) for row in rows]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("what:N", sort=order, title=None, axis=alt.Axis(labelLimit=140, labelOverlap=False, ticks=False, domain=False)),
        x=alt.X("score:Q", scale=alt.Scale(domain=[0, 1.12]), title=None, axis=None),
    )
    colour = alt.Color("what:N", scale=alt.Scale(domain=order, range=[SKY, ORANGE, GREY][: len(order)]), legend=None)
    text = base.mark_text(align="left", dx=4, color=LIGHT).encode(text=alt.Text("score:Q", format=".2f"))
    return alt.layer(base.mark_bar(height=12).encode(color=colour), text).properties(height=28 * len(rows) + 8)


def predicted(
    curves: Mapping[str, Mapping[float, float]],
    patient: Sequence[str],
    limits: Mapping[str, Mapping[float, tuple[float, float]]] = MappingProxyType({}),
) -> alt.LayerChart | alt.FacetChart:
    """Predicted survival by days: points joined by lines, since nothing is known between.

    Args:
        curves: by name, survival by days.
        patient: which of them are this patient's: drawn heavy; others thin.
        limits: by name, lower and upper limit by days; drawn as a band.
    """
    import altair as alt

    rows = [
        {"who": name, "years": days / YEAR, "survival": value, "heavy": name in patient}
        for name, curve in curves.items()
        for days, value in {0.0: 1.0, **curve}.items()
    ]
    names = list(curves)
    greys = iter((GREEN, "#f0e442", PURPLE, GREY))
    colours = [{0: SKY, 1: ORANGE}[patient.index(n)] if n in patient else next(greys, GREY) for n in names]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("years:Q", title="years", axis=alt.Axis(grid=False, tickMinStep=1)),
        y=alt.Y("survival:Q", title="predicted survival", scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("who:N", sort=names, scale=alt.Scale(domain=names, range=colours), legend=_legend()),
        strokeDash=alt.condition("datum.heavy", alt.value([1, 0]), alt.value([5, 3])),
    )
    width = alt.condition("datum.heavy", alt.value(3), alt.value(1.5))
    band = [
        {"who": name, "years": days / YEAR, "low": low, "high": high}
        for name, ends in limits.items()
        if name in curves and ends
        for days, (low, high) in {0.0: (1.0, 1.0), **ends}.items()
    ]
    layers: list[Any] = [base.mark_line().encode(strokeWidth=width), base.mark_point(filled=True, size=35)]
    if band:
        area = (
            alt.Chart(alt.Data(values=band))
            .mark_area(opacity=0.18)
            .encode(
                x="years:Q",
                y=alt.Y("low:Q", scale=alt.Scale(domain=[0, 1])),
                y2="high:Q",
                color=alt.Color("who:N", sort=names, scale=alt.Scale(domain=names, range=colours), legend=_legend()),
            )
        )
        layers = [area, *layers]
    return alt.layer(*layers).properties(height=320)


def observed(curves: Mapping[str, Curve]) -> alt.LayerChart | alt.FacetChart:
    """Kaplan-Meier curves (days) with intervals and, below the axis, the numbers at risk."""
    import altair as alt
    import numpy as np

    names = list(curves)
    colours = list(GROUP_COLOURS[: len(names)])
    longest = max(float(c.followed[-1]) for c in curves.values()) / YEAR
    marks = np.arange(0, longest + 1e-9, max(1.0, np.ceil(longest / 6)))
    steps = [
        {"who": name, "years": t / YEAR, "survival": s, "low": low, "high": high}
        for name, c in curves.items()
        for t, s, low, high in zip(c.times.tolist(), c.survival.tolist(), c.low.tolist(), c.high.tolist(), strict=True)
    ]
    counts = [
        {"who": name, "years": float(x), "y": -0.13 - 0.12 * row, "n": int(n)}
        for row, (name, c) in enumerate(curves.items())
        for x, n in zip(marks, c.at_risk(marks * YEAR), strict=True)
    ]
    y = alt.Scale(domain=[-0.1 - 0.12 * len(names), 1], nice=False)
    axis = alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2f", title="observed survival")
    x = alt.X("years:Q", title="years; numbers at risk above the axis", axis=alt.Axis(grid=False, values=marks.tolist()))
    colour = alt.Color("who:N", sort=names, scale=alt.Scale(domain=names, range=colours), legend=_legend())
    base = alt.Chart(alt.Data(values=steps)).encode(x=x, color=colour)
    band = base.mark_area(interpolate="step-after", opacity=0.18).encode(y=alt.Y("low:Q", scale=y, axis=axis), y2="high:Q")
    line = base.mark_line(interpolate="step-after", strokeWidth=2).encode(y=alt.Y("survival:Q", scale=y, axis=axis))
    text = alt.Chart(alt.Data(values=counts)).mark_text(fontSize=11)
    numbers = text.encode(x=x, y=alt.Y("y:Q", scale=y, axis=axis), text="n:Q", color=colour)
    return alt.layer(band, line, numbers).properties(height=380)


def _legend() -> alt.Legend:
    import altair as alt

    return alt.Legend(title=None, orient="top", columns=2, labelLimit=220, symbolType="stroke", symbolOpacity=1)
