"""Segmentation of masses, cysts and stones on held-out phantoms: a decoder on the pretrained encoder beside three baselines.

The same network learns from 50 and from 400 crops, its encoder from the bundle (learning along, or frozen) or from nothing, in
the same number of steps. Thresholds and settings of every row come from validation phantoms. What is trained is kept under --out,
so a second run only measures.

    python benchmarks/segmentation.py --bundle configs/bundles/phantom-demo --out runs/segmentation
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_opening, gaussian_filter
from scipy.ndimage import label as connected
from torch.nn import functional

from medvl.data.cohort import Cohort, PhantomCohort, build_phantom, crop_geometry, open_cohort
from medvl.evaluation.intervals import bootstrap, paired_bootstrap
from medvl.evaluation.overlap import Agreement, compare, pooled_dice, pooled_threshold
from medvl.evaluation.phantom_truth import patient_of
from medvl.files import whole
from medvl.geometry import Geometry
from medvl.heads.segment_train import LabelledCrops, SegmentTraining, label_map, train_segmentation
from medvl.heads.segmentation import SegmentationHead, SegmentConfig
from medvl.imaging.phantom.render import lesion_masks
from medvl.imaging.preprocess import MIN_COVERED, Contract
from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle
from medvl.text.prompts import Finding

mpl.use("Agg")
SEED = 11
STARTS = {"train": (0, 240), "validation": (100000, 80), "test": (200000, 200)}
CLASSES = ("renal_mass", "renal_cyst", "renal_stone")
WAYS = {
    "pretrained-50": (50, True, False),
    "scratch-50": (50, False, False),
    "pretrained-400": (400, True, False),
    "scratch-400": (400, False, False),
    "frozen-400": (400, True, True),
}
HU_SETTINGS: tuple[list[tuple[float, float, float]], ...] = (
    [(low, high, radius) for low in (30, 50) for high in (100, 160) for radius in (14, 20)],
    [(low, high, radius) for low in (-20, 0) for high in (15, 25, 35) for radius in (20,)],
    [(low, 4000, radius) for low in (250, 350, 500) for radius in (10, 14, 20)],
)
Labels = NDArray[np.uint8]


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("configs/bundles/phantom-demo"))
    parser.add_argument("--out", type=Path, default=Path("runs/segmentation"))
    parser.add_argument("--only", choices=WAYS, help="train this one and stop")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    predictor = Predictor(open_bundle(options.bundle))
    sets = {name: crops_of(options.out, predictor, name) for name in STARTS}
    for name in [options.only] if options.only else WAYS:
        if not (options.out / name / "segmentation.json").exists():
            train(options, predictor, name, sets["train"])
    if not options.only:
        measure(options, predictor, sets)


def crops_of(out: Path, predictor: Predictor, name: str) -> LabelledCrops:
    """Kidney crops of phantoms with their label maps, made once."""
    start, n = STARTS[name]
    specs = tuple(s for s in predictor.contract.regions if s.name in predictor.kinds["kidney"])
    contract, wanted = Contract(specs, predictor.contract.fill_hu), PhantomCohort(SEED, start, n)
    place = out / wanted.key(contract)
    cohort = open_cohort(place) if (place / "cohort.json").exists() else build_phantom(out, wanted, contract)
    rows, columns = np.nonzero(cohort.covered >= MIN_COVERED)
    path = out / f"labels-{name}.npy"
    if not path.exists():
        labels = np.stack([_labels(cohort, int(i), contract, int(j)) for i, j in zip(rows, columns, strict=True)])
        with whole(path) as part, part.open("wb") as file:
            np.save(file, labels)
    regions = tuple(cohort.regions[j] for j in columns)
    patients = tuple(str(cohort.cases[i]["patient_id"]) for i in rows)
    return LabelledCrops(np.asarray(cohort.hu)[rows, columns], np.load(path), regions, patients)


def _labels(cohort: Cohort, row: int, contract: Contract, column: int) -> NDArray[np.uint8]:
    patient, spec = patient_of(cohort.cases[row]["truth"]), contract.regions[column]
    grid = crop_geometry(patient, spec, PhantomCohort(SEED, 0, 1).jitter_mm)
    return label_map(lesion_masks(patient, grid), spec.name, CLASSES, spec.grid_dhw)


def train(options: argparse.Namespace, predictor: Predictor, name: str, crops: LabelledCrops) -> None:
    """Train and keep one head."""
    n, pretrained, frozen = WAYS[name]
    how = SegmentTraining(steps=options.steps, frozen=frozen, encoder_factor=0.3 if pretrained else 1.0)
    config = SegmentConfig(classes=CLASSES, regions=predictor.kinds["kidney"])
    tower, image = predictor.clip.image if pretrained else None, predictor.clip.config.image
    source = {"weights_sha256": predictor.bundle.manifest["files"]["weights.safetensors"]} if pretrained else {}
    head = SegmentationHead.build(config, predictor.contract, image, tower, source={**source, "training": vars(how), "crops": n})
    started = time.process_time()

    def told(step: int, loss: float) -> None:
        if step % 20 == 0:
            print(f"{name}: step {step}: loss {loss:.3f}, {time.process_time() - started:.0f} s", file=sys.stderr, flush=True)

    train_segmentation(head.net, crops.first(n), predictor.contract, how, told)
    head.save(options.out / name)


def measure(options: argparse.Namespace, predictor: Predictor, sets: dict[str, LabelledCrops]) -> None:
    """Every row of the table, and pairs of rows on the same patients."""
    rows: dict[str, Labels] = {}
    validation, test = sets["validation"], sets["test"]
    rows["HU window, largest part"] = kept(options.out, "hu", lambda: by_hu(validation, test))
    rows["heat map of the bundle"] = kept(options.out, "heat", lambda: by_heat(predictor, validation, test))
    for name in WAYS:
        if (options.out / name / "segmentation.json").exists():
            rows[name] = kept(options.out, name, lambda name=name: by_head(options.out / name, validation, test))
    spacing = predictor.contract[test.regions[0]].spacing_mm
    grid = Geometry.centered((0.0, 0.0, 0.0), test.labels.shape[1:], spacing)
    scores = {name: agreements(labels, test, grid) for name, labels in rows.items()}
    print(table(scores, test, options.draws), "", pairs(scores, test, options.draws), sep="\n")
    if options.figure:
        draw(options.figure, test, rows)


def kept(out: Path, name: str, make: Callable[[], Labels]) -> Labels:
    """(N, D, H, W) labels of the test crops, made once."""
    path = out / f"marked-{name}.npy"
    if not path.exists():
        labels = make()
        with whole(path) as part, part.open("wb") as file:
            np.save(file, labels)
    return np.asarray(np.load(path))


def by_hu(validation: LabelledCrops, test: LabelledCrops) -> Labels:
    """Voxels whose smoothed HU lie in a window, near the middle of the crop; the largest part of them, for stones all."""
    settings = [
        max(
            HU_SETTINGS[k],
            key=lambda s, k=k: pooled_dice([_in_window(hu, s, k) for hu in validation.hu], list(validation.labels == k + 1)),
        )  # type: ignore[misc]
        for k in range(len(CLASSES))
    ]
    print("HU windows (low, high, radius in voxels):", dict(zip(CLASSES, settings, strict=True)), file=sys.stderr)
    out = np.zeros(test.labels.shape, np.uint8)
    for i, hu in enumerate(test.hu):
        for k, setting in enumerate(settings):
            out[i][_in_window(hu, setting, k)] = k + 1
    return out


def _in_window(hu: NDArray[np.int16], setting: tuple[float, float, float], k: int) -> NDArray[np.bool_]:
    low, high, radius = setting
    smooth = hu.astype(np.float32) if k == 2 else gaussian_filter(hu.astype(np.float32), 1.0)
    mask = (smooth >= low) & (smooth < high) & (_from_middle(hu.shape) <= radius)
    if k == 2 or not mask.any():
        return np.asarray(mask)
    found, n = connected(binary_opening(mask))
    return np.asarray(found == 1 + np.bincount(found.ravel(), minlength=n + 1)[1:].argmax()) if n else mask & False


def _from_middle(shape: tuple[int, ...]) -> NDArray[np.float64]:
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij", sparse=True)
    return np.sqrt(sum(a**2 for a in axes))


def by_heat(predictor: Predictor, validation: LabelledCrops, test: LabelledCrops) -> Labels:
    """The bundle's contributions to each finding's margin, at the threshold that is best on validation patients."""
    findings = [next(f for f in predictor.findings.findings if f.key == name) for name in CLASSES]

    def heats(crops: LabelledCrops, finding: Finding) -> NDArray[np.float16]:
        out = np.zeros(crops.hu.shape, np.float16)
        for region in sorted(set(crops.regions)):
            rows = np.flatnonzero(np.array(crops.regions) == region)
            kind = list(predictor.kinds).index(predictor.kind_of(region))
            for part in np.array_split(rows, max(1, len(rows) // 16)):
                shares = predictor.answering.heat(finding, region, crops.pixels(part, predictor.contract), kind)
                fine = functional.interpolate(shares[:, None], size=crops.hu.shape[1:], mode="trilinear", align_corners=False)
                out[part] = (fine[:, 0] * 100).clamp(0, 60000).half().numpy()
        return out

    out = np.zeros(test.labels.shape, np.uint8)
    for k, finding in enumerate(findings):
        known = heats(validation, finding)
        levels = np.quantile(known[known > 0].astype(np.float64), 1 - np.geomspace(1e-5, 0.2, 60))
        level = pooled_threshold(list(known), list(validation.labels == k + 1), levels)
        out[heats(test, finding) >= level] = k + 1
    return out


def by_head(folder: Path, validation: LabelledCrops, test: LabelledCrops) -> Labels:
    """A trained head, its thresholds from validation patients kept with it."""
    head = SegmentationHead.load(folder)

    def found(crops: LabelledCrops) -> NDArray[np.float16]:
        parts = np.array_split(np.arange(len(crops)), max(1, len(crops) // 8))
        return np.concatenate([head.probabilities(crops.pixels(p, head.contract)).half().numpy() for p in parts])

    known = found(validation)
    levels = np.linspace(0.05, 0.95, 19)
    chosen = [pooled_threshold(list(known[:, k]), list(validation.labels == k + 1), levels) for k in range(len(CLASSES))]
    head.thresholds = tuple(chosen)
    head.save(folder)
    return np.stack([head.labels(p) for p in found(test)])


def agreements(labels: Labels, crops: LabelledCrops, grid: Geometry) -> dict[str, list[Agreement]]:
    """Every class of every crop against the truth."""
    return {
        name: [compare(a == k + 1, b == k + 1, grid) for a, b in zip(labels, crops.labels, strict=True)]
        for k, name in enumerate(CLASSES)
    }


def _dice(found: Sequence[Agreement]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rows = np.array([i for i, a in enumerate(found) if a.reference_ml > 0])
    return rows, np.array([found[i].dice for i in rows])


def table(scores: dict[str, dict[str, list[Agreement]]], crops: LabelledCrops, draws: int) -> str:
    """Dice of crops that hold the class, what is marked where it is not, and surface distances where both mark something."""
    lines = [
        "| class | way | Dice [95 % CI] | missed | HD95, mm | surface distance, mm | mL marked where there is none |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    who = np.array(crops.patients)
    for name in CLASSES:
        for way, by_class in scores.items():
            found = by_class[name]
            rows, values = _dice(found)
            low, high = bootstrap(lambda r, v=values: float(v[r].mean()), who[rows], n=draws)  # type: ignore[misc]
            both = [found[i] for i in rows if found[i].volume_ml > 0]
            false = np.mean([a.volume_ml for a in found if a.reference_ml == 0])
            far, near = (np.median([getattr(a, m) for a in both]) if both else np.nan for m in ("hd95_mm", "surface_mm"))
            lines.append(
                f"| {name} ({len(rows)}) | {way} | {values.mean():.3f} [{low:.3f}, {high:.3f}] | "
                f"{1 - len(both) / len(rows):.0%} | "
                f"{far:.1f} | {near:.1f} | {false:.2f} |"
            )
    return "\n".join(lines)


def pairs(scores: dict[str, dict[str, list[Agreement]]], crops: LabelledCrops, draws: int) -> str:
    """Differences in Dice on the same crops."""
    wanted = [("pretrained-50", "scratch-50"), ("pretrained-400", "scratch-400"), ("frozen-400", "scratch-400")]
    wanted += [("pretrained-400", other) for other in ("HU window, largest part", "heat map of the bundle")]
    lines = ["| class | difference in Dice | value [95 % CI] | p |", "| --- | --- | --- | --- |"]
    who = np.array(crops.patients)
    for name in CLASSES:
        for a, b in wanted:
            if a in scores and b in scores:
                rows, first = _dice(scores[a][name])
                second = _dice(scores[b][name])[1]
                found = paired_bootstrap(
                    lambda r, v=first: float(v[r].mean()),
                    lambda r, v=second: float(v[r].mean()),
                    who[rows],
                    n=draws,  # type: ignore[misc]
                )
                lines.append(f"| {name} | {a} - {b} | {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}] | {found.p:.3f} |")
    return "\n".join(lines)


def draw(path: Path, crops: LabelledCrops, rows: dict[str, Labels]) -> None:
    """Three crops, one a class: the truth and the marks of each way on the slice where the truth is largest."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    ways = {"truth": crops.labels, **rows}
    colours = ["#ff5a36", "#2fb7ff", "#ffe14d"]
    figure, axes = plt.subplots(len(CLASSES), len(ways), figsize=(1.75 * len(ways), 5.9), squeeze=False)
    for k in range(len(CLASSES)):
        size = (crops.labels == k + 1).sum((1, 2, 3))
        i = int(np.argsort(size)[-max(1, np.count_nonzero(size) // 2)])
        z = int((crops.labels[i] == k + 1).sum((1, 2)).argmax())
        for axis, (name, labels) in zip(axes[k], ways.items(), strict=True):
            axis.imshow(crops.hu[i, z], cmap="gray", vmin=-150, vmax=250)
            marked = np.ma.masked_equal(labels[i, z], 0)
            axis.imshow(marked, cmap=ListedColormap(colours), vmin=1, vmax=3, alpha=0.65, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if k == 0:
                axis.set_title(name.replace(", ", ",\n").replace(" of the", "\nof the"), fontsize=8)
        axes[k][0].set_ylabel(f"a crop with a {CLASSES[k].removeprefix('renal_')}", fontsize=8)
    handles = [Patch(color=c, label=n.removeprefix("renal_")) for c, n in zip(colours, CLASSES, strict=True)]
    figure.legend(handles=handles, loc="lower center", ncol=3, fontsize=8, frameon=False)
    figure.subplots_adjust(left=0.03, right=0.995, top=0.92, bottom=0.06, wspace=0.03, hspace=0.03)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
