"""Figures of an evaluation, each from plain values of its results record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medvl.evaluation.report.document import p_text, readable, span
from medvl.evaluation.report.style import BLUE, GREEN, GREY, LIGHT, ORANGE, WIDTH, forest, grid_of, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from medvl.survival.curves import Curve

Findings = Mapping[str, Mapping[str, Any]]
COLUMNS = 4
GROUP_COLOURS = {"low": GREEN, "middle": BLUE, "high": ORANGE}


def measured(findings: Findings) -> list[tuple[str, Mapping[str, Any]]]:
    """Those that have an AUROC."""
    return [(key, f) for key, f in findings.items() if "auroc" in f]


def _small(found: Sequence[tuple[str, Mapping[str, Any]]], x: str, y: str, height: float = 2.05) -> tuple[Figure, list[Axes]]:
    figure, panels = grid_of(len(found), COLUMNS, height)
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)
    for (_, f), axes in zip(found, panels, strict=True):
        axes.set_title(_short(f["label"]))
    return figure, panels


def _short(label: str, most: int = 34) -> str:
    return label if len(label) <= most else label[: most - 1].rstrip() + "…"


def _unit(axes: Axes) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_aspect("equal")


def roc(findings: Findings) -> Figure:
    """ROC curve of each finding, its AUROC, and the bundle's threshold as a point."""
    with styled():
        found = measured(findings)
        figure, panels = _small(found, "1 - specificity", "sensitivity")
        for (_, f), axes in zip(found, panels, strict=True):
            axes.plot([0, 1], [0, 1], color=LIGHT, linewidth=0.9, zorder=0)
            axes.plot(f["roc"]["fpr"], f["roc"]["tpr"], color=BLUE)
            if f["sensitivity"].get("value") is not None and f["specificity"].get("value") is not None:
                axes.plot(1 - f["specificity"]["value"], f["sensitivity"]["value"], "o", color=ORANGE, markersize=4.5, zorder=3)
            axes.text(0.98, 0.06, f"AUROC {span(f['auroc'], 2)}\n{f['present']} of {f['n']} present", ha="right", fontsize=7)
            _unit(axes)
        return figure


def reliability(findings: Findings) -> Figure:
    """Observed frequency against predicted probability in equally filled bins, with 95 % intervals over patients."""
    with styled():
        found = measured(findings)
        figure, panels = _small(found, "predicted probability", "observed frequency")
        for (_, f), axes in zip(found, panels, strict=True):
            r = f["reliability"]
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--", zorder=0)
            axes.vlines(r["mean_probability"], r["low"], r["high"], color=BLUE, linewidth=1, alpha=0.6)
            axes.plot(r["mean_probability"], r["frequency"], "o-", color=BLUE, markersize=3, linewidth=1)
            axes.text(0.98, 0.04, f"ECE {span(f['ece'], 2)}", ha="right", fontsize=7)
            _unit(axes)
        return figure


def decision(findings: Findings) -> Figure:
    """Net benefit of acting on the model, on everybody and on nobody."""
    with styled():
        found = measured(findings)
        figure, panels = _small(found, "threshold probability", "net benefit")
        for (_, f), axes in zip(found, panels, strict=True):
            d, top = f["decision"], f["present"] / f["n"]
            axes.axhline(0, color=GREY, linewidth=0.9)
            axes.plot(d["threshold"], d["treat_all"], color=GREY, linewidth=0.9, linestyle="--")
            axes.fill_between(d["threshold"], d["low"], d["high"], color=BLUE, alpha=0.15, linewidth=0)
            axes.plot(d["threshold"], d["model"], color=BLUE)
            axes.set_xlim(0, 1)
            axes.set_ylim(-0.15 * top, max(1.12 * top, 1.05 * max(d["high"])))
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        _key(figure, [("model", BLUE, "-"), ("act on all", GREY, "--"), ("act on none", GREY, "-")])
        return figure


def risk_coverage(findings: Findings) -> Figure:
    """Share of wrong answers among the most certain ones, as more of them are answered."""
    with styled():
        found = measured(findings)
        figure, panels = _small(found, "share answered, most certain first", "share wrong")
        top = max(max(f["risk_coverage"]["error"]) for _, f in found)
        for (_, f), axes in zip(found, panels, strict=True):
            c = f["risk_coverage"]
            axes.plot(c["coverage"], c["error"], color=BLUE)
            axes.axvline(1 - (f["undecided"]["value"] or 0), color=ORANGE, linewidth=0.9, linestyle="--")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, min(1.0, 1.08 * top))
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        _key(figure, [("errors", BLUE, "-"), ("share the bundle answers", ORANGE, "--")])
        return figure


def _key(figure: Figure, entries: Sequence[tuple[str, str, Any]]) -> None:
    """One legend above all panels."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, linestyle=style, label=name) for name, colour, style in entries]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(entries))


def finding_forest(findings: Findings) -> Figure:
    """AUROC of every finding with its interval, best first."""
    found = sorted(measured(findings), key=lambda kf: -kf[1]["auroc"]["value"])
    rows = [_row(f["label"], f["auroc"], f"{span(f['auroc'])}   {f['present']}/{f['n']}") for _, f in found]
    return _forest(rows, "AUROC [95 % CI]   present / regions", 0.5)


def subgroup_forest(groups: Sequence[Mapping[str, Any]], overall: Mapping[str, Any]) -> Figure | None:
    """Mean AUROC of each group, under the name of its column; None where no group has one."""
    rows = [_row("All patients", overall, span(overall))]
    for column in groups:
        if not column.get("mean_over"):
            continue
        rows.append((column["label"], float("nan"), None, None, f"mean of {len(column['mean_over'])} findings"))
        for group in column["groups"]:
            told = group["mean_auroc"]
            if told.get("value") is not None:
                rows.append(_row(group["group"], told, f"{span(told)}   n = {group['patients']}"))
    return _forest(rows, "mean AUROC [95 % CI]   patients", overall.get("value")) if len(rows) > 1 else None


def difference_forest(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Paired differences to the second model with intervals; None where there are none."""
    found = [r for r in rows if r.get("difference", {}).get("value") is not None]
    lines = [
        _row(f"{readable(r['what'])} ({r['metric']})", r["difference"], f"{span(r['difference'])}   p {p_text(r['p_adjusted'])}")
        for r in found
    ]
    return _forest(lines, "this model minus the second [95 % CI]   adjusted p", 0.0) if lines else None


def _row(label: str, told: Mapping[str, Any], right: str) -> tuple[str, float, float | None, float | None, str]:
    low, high = told.get("ci") or (None, None)
    return label, float(told["value"]), low, high, right


def _forest(rows: list[tuple[str, float, float | None, float | None, str]], title: str, null: float | None) -> Figure:
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(WIDTH * 0.45, 0.235 * len(rows) + 0.7))
        axes = figure.add_axes((0, 0, 1, 1))
        forest(axes, rows, null=null)
        axes.set_title(title, loc="right", x=1.02, ha="left", color=GREY, fontsize=7.5)
        return figure


def kaplan_meier(told: Mapping[str, Any]) -> Figure:
    """Survival of the bundle's risk groups with intervals, and below how many were still watched."""
    from medvl.survival.curves import figure_of_groups

    found = [c for c in told["groups"]["curves"] if c["patients"]]
    with styled():
        figure = figure_of_groups(
            {f"{c['group']} risk": _curve(c) for c in found},
            p=told["groups"].get("logrank", {}).get("p"),
            unit="years",
            colours=[GROUP_COLOURS[c["group"]] for c in found],
        )
        figure.axes[1].set_xlabel("years from the scan")
        return figure


def _curve(told: Mapping[str, Any]) -> Curve:
    """A curve of the record, in years."""
    from medvl.survival.curves import Curve

    years = {name: np.array(told[name], dtype=np.float64) / 365.25 for name in ("days", "censored", "followed")}
    survival, low, high = (np.array(told[name], dtype=np.float64) for name in ("survival", "low", "high"))
    median = float(np.min(years["days"][survival <= 0.5], initial=np.inf))
    followed = years["followed"]
    return Curve(years["days"], survival, low, high, years["censored"], told["patients"], told["events"], median, followed)


def survival_calibration(told: Mapping[str, Any]) -> Figure | None:
    """Predicted against observed survival of each risk group, one panel a horizon; None where no horizon could be judged."""
    found = [(days, at) for days, at in told["at"].items() if isinstance(at, Mapping) and at.get("groups")]
    if not found:
        return None
    with styled():
        figure, panels = grid_of(len(found), 3, 2.4)
        figure.supxlabel("mean predicted survival", fontsize=9)
        figure.supylabel("observed (Kaplan-Meier)", fontsize=9)
        for (days, at), axes in zip(found, panels, strict=True):
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--", zorder=0)
            for g in at["groups"]:
                colour = GROUP_COLOURS[g["group"]]
                if g["ci"]:
                    axes.vlines(g["predicted"], *g["ci"], color=colour, linewidth=1.2)
                axes.plot(g["predicted"], g["observed"], "o", color=colour, markersize=5, label=f"{g['group']} risk")
            axes.set_title(f"{float(days) / 365.25:.1f} years")
            _unit(axes)
        panels[0].legend(loc="lower right", fontsize=7)
        return figure


def pointing(findings: Findings) -> Figure | None:
    """Share of maps whose peak lies in the lesion, by label, beside chance; None where nothing was measured."""
    found = {label: f for label, f in findings.items() if f.get("rate", {}).get("value") is not None}
    if not found:
        return None
    rows = [_row(label, f["rate"], f"{span(f['rate'], 2)}   n = {f['n']}") for label, f in found.items()]
    figure = _forest(rows, "peak in the lesion [95 % CI]   lesions", None)
    with styled():
        axes = figure.axes[0]
        for k, f in enumerate(found.values()):
            axes.plot([f["chance"]], [len(rows) - 1 - k], "|", color=ORANGE, markersize=9, markeredgewidth=1.6)
        axes.set_xlim(-0.03, 1.03)
        return figure


def deletion(findings: Findings) -> Figure:
    """How much more scores fall at the peak than elsewhere, by label."""
    rows = [_row(label, f["difference"], f"{span(f['difference'], 2)}   n = {f['n']}") for label, f in findings.items()]
    return _forest(rows, "fall at the peak minus elsewhere [95 % CI]   lesions", 0.0)
