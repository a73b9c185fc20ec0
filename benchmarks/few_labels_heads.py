"""Which head to take when labels are few: linear probe, nearest prototype, or a probe that starts from the prompts.

On embedded cohorts (of a bundle: `medvl embed`; of a recipe's run: `few_labels.py --embedded`). Shares are of training patients,
drawn by seed; penalties come from validation patients; AUROC with its interval by patient from test patients.

    python benchmarks/few_labels_heads.py --embedded DIR --out runs/few-labels-heads --image docs/images/few-labels.png

DIR holds train, validation and test. With --few-validation as small a share of the validation patients is used as of the training
patients, which is what somebody with so few labels would have.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.fractions import FRACTIONS, SEEDS, fraction_subset
from medvl.evaluation.intervals import Statistic, bootstrap
from medvl.evaluation.metrics import auroc_of
from medvl.files import replace_text
from medvl.heads.few_shot import FAR, efficiency, fit_prompted, fit_prototypes
from medvl.heads.probe import fit_linear_probe

SPLITS = ("train", "validation", "test")
METHODS = {"probe": "linear probe", "prototype": "nearest prototype", "prompted": "probe from the prompts"}
COLORS = {"probe": "#0b6e74", "prototype": "#b4561f", "prompted": "#5b4b9a"}
PENALTIES = tuple(float(p) for p in np.logspace(1, -4, 6))


@dataclass(frozen=True, eq=False)
class Rows:
    """Regions that are asked a finding: features, margins, labels 0 or 1, whose."""

    x: NDArray[np.float64]
    margins: NDArray[np.float64]
    y: NDArray[np.int64]
    who: NDArray[np.str_]

    def take(self, rows: NDArray[np.int64]) -> Rows:
        return Rows(self.x[rows], self.margins[rows], self.y[rows], self.who[rows])


def main() -> None:
    """Learn, measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedded", type=Path, required=True)
    parser.add_argument("--findings", nargs="+", default=["renal_mass", "hydronephrosis", "renal_stone", "renal_cyst"])
    parser.add_argument("--features", choices=("pooled", "embedding"), default="embedding")
    parser.add_argument("--few-validation", action="store_true")
    parser.add_argument("--fractions", type=float, nargs="+", default=FRACTIONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("runs/few-labels-heads"))
    parser.add_argument("--image", type=Path)
    options = parser.parse_args()
    cohorts = {split: Embedded.load(options.embedded / split) for split in SPLITS}
    told = {}
    for key in options.findings:
        told[key] = measured(options, {s: rows_of(e, key, options.features) for s, e in cohorts.items()})
        print(f"{key}: done", file=sys.stderr, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"few-labels-{options.features}{'-few-validation' if options.few_validation else ''}"
    replace_text(options.out / f"{name}.json", json.dumps(told, indent=1) + "\n")
    print(table(told))
    if options.image:
        draw(told, options.image)


def rows_of(embedded: Embedded, key: str, features: str) -> Rows:
    """Regions with a known truth, a margin and features."""
    j = embedded.column(key)
    x, margins = getattr(embedded, features).astype(np.float64), embedded.margins[:, j].astype(np.float64)
    rows = np.flatnonzero((embedded.truth[:, j] >= 0) & np.isfinite(margins) & np.isfinite(x).all(1))
    who = embedded.rows["patient_id"].to_numpy(dtype=str)[rows]
    return Rows(x[rows], margins[rows], embedded.truth[rows, j].astype(np.int64), who)


def measured(options: argparse.Namespace, parts: Mapping[str, Rows]) -> dict[str, Any]:
    """Zero-shot, and the curve of each method."""
    train, test = parts["train"], parts["test"]
    zero = auroc_of(test.y, test.margins)
    low, high = bootstrap(zero, test.who, n=options.draws)
    told: dict[str, Any] = {
        "counts": {name: [len(part.y), int(part.y.sum()), len(set(part.who))] for name, part in parts.items()},
        "zero_shot": {"value": float(zero(np.arange(len(test.y)))), "ci": [low, high]},
    }
    for method in METHODS:

        def learn(rows: NDArray[np.int64], fraction: float, seed: int, method: str = method) -> Statistic:
            held = parts["validation"]
            if options.few_validation:
                held = held.take(fraction_subset(held.who, fraction, seed))
            return auroc_of(test.y, answer(method, train.take(rows), held, test))

        points = efficiency(train.who, learn, test.who, fractions=options.fractions, seeds=options.seeds, draws=options.draws)
        told[method] = [asdict(point) for point in points]
    return told


def answer(method: str, train: Rows, held: Rows, test: Rows) -> NDArray[np.float64]:
    """(M,) scores of test regions.

    Raises:
        ConfigError: the share has one class only.
    """
    if len(set(train.y.tolist())) < 2:
        raise ConfigError(f"{int(train.y.sum())} of {len(train.y)} regions show the finding: one class only")
    if method == "prototype":
        logits = fit_prototypes(train.x, train.y, 2).logits(test.x)
        return np.asarray(logits[:, 1] - logits[:, 0])
    if method == "prompted":
        head = fit_prompted((train.x, train.y, train.margins), (held.x, held.y, held.margins), penalties=(*PENALTIES, FAR))
        return head.logits(test.x, test.margins)
    pairs = [(part.x, part.y[:, None]) for part in (train, held)]
    return fit_linear_probe(pairs[0], pairs[1], "multilabel", 1, penalties=PENALTIES).logits(test.x)[:, 0]


def table(told: Mapping[str, Any]) -> str:
    """Markdown: mean over seeds, 95 % interval over test patients; refused draws are told."""
    shares = [point["fraction"] for point in next(iter(told.values()))["probe"]]
    lines = ["| finding | head | " + " | ".join(f"{s:.0%}" for s in shares) + " |", "|---" * (2 + len(shares)) + "|"]
    for key, found in told.items():
        zero = found["zero_shot"]
        lines.append(
            f"| {key} | zero-shot {zero['value']:.3f} ({zero['ci'][0]:.3f} to {zero['ci'][1]:.3f})" + " |" * (1 + len(shares))
        )
        for method, name in METHODS.items():
            lines.append(f"| | {name} | " + " | ".join(_cell(point) for point in found[method]) + " |")
    return "\n".join(lines)


def _cell(point: Mapping[str, Any]) -> str:
    if point["value"] is None:
        return "refused"
    few = f" [{len(point['seeds'])} of {len(point['seeds']) + len(point['refused'])}]" if point["refused"] else ""
    return f"{point['value']:.3f} ({point['ci'][0]:.3f} to {point['ci'][1]:.3f}){few}"


def draw(told: Mapping[str, Any], path: Path) -> None:
    """A panel a finding: curves with intervals over patients, whiskers over seeds, zero-shot as a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(told), figsize=(3.3 * len(told), 3.4), squeeze=False, layout="constrained")
    for panel, (key, found) in zip(panels[0], told.items(), strict=True):
        zero = found["zero_shot"]
        panel.axhspan(*zero["ci"], color="#9aa3ad", alpha=0.2, lw=0)
        panel.axhline(zero["value"], color="#5a6470", lw=1.2, ls="--", label="zero-shot (no labels)")
        for k, (method, name) in enumerate(METHODS.items()):
            points = [p for p in found[method] if p["value"] is not None]
            x = np.array([100 * p["fraction"] for p in points]) * (0.94, 1.0, 1.06)[k]
            y, ends = np.array([p["value"] for p in points]), np.array([p["spread"] for p in points]).T
            panel.fill_between(x, *np.array([p["ci"] for p in points]).T, color=COLORS[method], alpha=0.1, lw=0)
            panel.errorbar(
                x, y, [y - ends[0], ends[1] - y], fmt="o-", color=COLORS[method], ms=3.5, lw=1.4, elinewidth=0.9, label=name
            )
        panel.set(xscale="log", title=key.replace("_", " "), xlabel="training patients (%)")
        panel.set_xticks([1, 10, 100], ["1", "10", "100"])
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("AUROC on test patients")
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
