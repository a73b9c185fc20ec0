"""The ten tasks of RenalCLIP on embedded cohorts: R.E.N.A.L. parts, malignancy, aggressiveness, OS, DSS, RFS.

Labels are a CSV file with one row a lesion; `configs/tasks/ten-tasks.yaml` says which columns. Heads learn on train, penalties
and thresholds come from validation, test is measured once. Several folders for a split are several scans of its patients.

    python benchmarks/ten_tasks.py --train EMB --validation EMB --test EMB --labels CSV --out runs/ten-tasks
    python benchmarks/ten_tasks.py --train EMB --validation EMB --test EMB --phantom      labels from the phantoms' truth
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medvl.evaluation.embedded import Embedded
from medvl.files import replace_text
from medvl.heads.task_list import load_ten_tasks
from medvl.heads.ten_tasks import SPLITS, run_ten_tasks
from medvl.imaging.phantom.sample import sample_patient
from medvl.renal_score import growth_class, radius_class

TASKS = Path(__file__).parents[1] / "configs" / "tasks" / "ten-tasks.yaml"


def main() -> None:
    """Learn, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=Path, nargs="+", required=True, help="embedded cohort, or one for each scan")
        parser.add_argument(
            f"--scratch-{split}", type=Path, nargs="+", help="the same, by an encoder trained on the labels alone"
        )
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument("--labels", type=Path, help="CSV with patient_id, region and label columns")
    labels.add_argument("--phantom", action="store_true", help="derive what the phantoms' truth tells")
    parser.add_argument("--phantom-seed", type=int, default=11, help="of phantoms whose cohort does not tell its seed")
    parser.add_argument("--protocol", type=Path, default=TASKS)
    parser.add_argument("--out", type=Path, default=Path("runs/ten-tasks"))
    parser.add_argument("--image", type=Path, help="PNG of the curves")
    parser.add_argument("--no-curve", action="store_true")
    options = parser.parse_args()
    cohorts = {split: [Embedded.load(path) for path in getattr(options, split)] for split in SPLITS}
    folders = {split: getattr(options, f"scratch_{split}") for split in SPLITS}
    scratch = {s: [Embedded.load(p) for p in paths] for s, paths in folders.items() if paths} or None
    if options.phantom:
        table = pd.concat([phantom_labels(part[0], options.phantom_seed) for part in cohorts.values()], ignore_index=True)
    else:
        table = pd.read_csv(options.labels, dtype={"patient_id": str})
    told = run_ten_tasks(load_ten_tasks(options.protocol), cohorts, table, scratch=scratch, curve=not options.no_curve)
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "labels.csv", index=False)
    replace_text(options.out / "ten-tasks.json", json.dumps(told, indent=1) + "\n")
    text = tables(told)
    replace_text(options.out / "ten-tasks.md", text)
    print(text)
    if options.image and not options.no_curve:
        draw(told, options.image)


def phantom_labels(embedded: Embedded, seed: int) -> pd.DataFrame:
    """What phantoms tell of their masses: R from the size, E from the share outside, L from the pole, survival of the patient.

    The truth holds no distance to the sinus (N), no face (A), no pathology and no cause of death, so these columns are missing.
    A pole says that a mass lies outside the polar lines or between them, never that it crosses one.
    """
    rows = []
    for who, known in embedded.patients.iterrows():
        person = sample_patient(int(known.get("seed", seed)), int(str(who)[2:]))
        for kidney in (person.kidney_left, person.kidney_right):
            mass = kidney.mass
            if mass is not None:
                rows.append(
                    {
                        "patient_id": who,
                        "region": f"kidney_{kidney.side}",
                        "size_mm": mass.size_mm,
                        "renal_radius": radius_class(mass.size_mm),
                        "mass_growth": growth_class(mass.exophytic_fraction, 0.05),
                        "mass_polar_lines": "between" if mass.pole not in ("upper", "lower") else "outside",
                        "os_days": person.time_days,
                        "os_event": int(person.event),
                    }
                )
    return pd.DataFrame(rows)


def tables(told: Mapping[str, Any]) -> str:
    """Markdown: measured tasks beside their baselines, what was refused, what was left out, and the curves."""
    tasks = told["tasks"]
    lines = [
        f"| task | measure | test lesions (patients) | image | {' | '.join(BESIDE)} | image - clinical |",
        "|---" * (5 + len(BESIDE)) + "|",
    ]
    for name, task in tasks.items():
        if "na" in task:
            continue
        image, main = task["image"], task["main"]
        size = f"{image['n']} ({image['patients']})" + (
            f", {image['events']} events" if "events" in image else f" {image['sizes']}"
        )
        cells = [_cell(task["beside"].get(b, {}).get(main)) for b in BESIDE]
        gap = task["difference"].get("clinical")
        gain = f"{gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})" if gap else ""
        lines.append(f"| {task['label']} ({name}) | {main} | {size} | {_cell(image[main])} | {' | '.join(cells)} | {gain} |")
    lines += ["", "Other measures:", ""]
    for name, task in tasks.items():
        if "na" not in task:
            rest = {k: v for k, v in task["image"].items() if isinstance(v, dict) and k != task["main"]}
            lines.append(f"- {name}: " + ("; ".join(f"{k} {_cell(v)}" for k, v in rest.items()) or "none") + _left_out(task))
    lines += ["", "Refused:", "", *(f"- {name}: {task['na']}" for name, task in tasks.items() if "na" in task), ""]
    return "\n".join(lines + _curves(tasks)) + "\n"


BESIDE = ("clinical", "image and clinical", "size", "scratch")


def _left_out(task: Mapping[str, Any]) -> str:
    gone = "; ".join(
        f"{split} " + ", ".join(f"{n} {why}" for why, n in reasons.items())
        for split, reasons in task["excluded"].items()
        if reasons
    )
    classes = "".join(f"; class {c} left out, too few: {sizes}" for c, sizes in task.get("left_out", {}).items())
    return f". Left out: {gone or 'nobody'}{classes}. Scans: {task['phases'].get('na', 'several, see the JSON')}."


def _curves(tasks: Mapping[str, Any]) -> list[str]:
    curves = {name: task["curve"] for name, task in tasks.items() if "curve" in task}
    if not curves:
        return []
    shares = [point["fraction"] for point in next(iter(curves.values()))]
    lines = ["| task | " + " | ".join(f"{share:.0%}" for share in shares) + " |", "|---" * (1 + len(shares)) + "|"]
    for name, points in curves.items():
        cells = []
        for point in points:
            few = f" [{len(point['seeds'])} seeds]" if point["refused"] and point["seeds"] else ""
            cells.append("refused" if point["value"] is None else f"{point['value']:.3f} ({_ends(point['ci'])}){few}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _ends(pair: Any) -> str:
    return " to ".join(f"{round(value, 3) + 0.0:.3f}" for value in pair)


def _cell(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    return f"NA: {found['na']}" if found["value"] is None else f"{round(found['value'], 3) + 0.0:.3f} ({_ends(found['ci'])})"


def draw(told: Mapping[str, Any], path: Path) -> None:
    """Curves of all measured tasks, a panel a task: mean over seeds, interval over patients, and each seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = {name: task for name, task in told["tasks"].items() if "curve" in task}
    figure, panels = plt.subplots(1, len(found), figsize=(3.1 * len(found), 3.2), squeeze=False, layout="constrained")
    for panel, (name, task) in zip(panels[0], found.items(), strict=True):
        points = [p for p in task["curve"] if p["value"] is not None]
        x = [100 * p["fraction"] for p in points]
        panel.fill_between(
            x, *np.array([p["ci"] for p in points]).T, color="#0b6e74", alpha=0.18, lw=0, label="95 % over patients"
        )
        panel.plot(x, [p["value"] for p in points], "o-", color="#0b6e74", ms=4, label="mean over draws")
        for p in points:
            panel.plot([100 * p["fraction"]] * len(p["seeds"]), list(p["seeds"].values()), ".", color="#5a6470", ms=3)
        clinical = task["beside"].get("clinical", {}).get(task["main"])
        if clinical and clinical["value"] is not None:
            panel.axhline(clinical["value"], color="#b4561f", lw=1.2, ls="--", label="clinical facts, all labels")
        panel.axhline(0 if task["main"] == "quadratic kappa" else 0.5, color="#9aa3ad", lw=0.8)
        panel.set(xscale="log", title=f"{task['label']} ({name})", xlabel="training patients (%)", ylabel=task["main"])
        panel.set_ylim(*((-0.25, 1.0) if task["main"] == "quadratic kappa" else (0.45, 1.0)))
        panel.set_xticks([1, 10, 100], ["1", "10", "100"])
        panel.spines[["top", "right"]].set_visible(False)
        panel.plot([], [], ".", color="#5a6470", ms=3, label="each draw")
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
