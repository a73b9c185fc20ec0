"""Real CT: what we read of reference segmentations, where the phantom-trained localiser looks, and what is said of such scans.

Three scans of TotalSegmentator's repository (Apache-2.0): abdomen and pelvis at 3 mm (`example_ct`), its top 30 slices as a file
of their own (`example_ct_sm`, stored with the origin of the whole, so 246 mm too low in the world) and 40 mm of the upper abdomen
from a PET/CT (`petct_abdomen_j2k`, which ends above the kidneys). References are model-made masks; volumes are checked against
SimpleITK on the same masks, and set beside the numbers that the repository ships for masks of another version of its model.

    python benchmarks/real_ct_regions.py --data ../shared/data --bundle configs/bundles/phantom-demo
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from numpy.typing import NDArray

from medvl.evaluation.overlap import compare
from medvl.geometry import Geometry
from medvl.imaging.load import load
from medvl.imaging.mask_shape import mask_shape
from medvl.imaging.nifti import read_labels, read_nifti, write_nifti
from medvl.inference.masks import places_from_masks
from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle
from medvl.records import Volume

ORGANS = ("kidney_left", "kidney_right", "liver", "spleen", "pancreas", "aorta", "vertebrae_L1", "heart")
TOP_SLICE = 82  # of the whole volume, where the 30 slices begin
KIDNEYS = ("kidney_left", "kidney_right")


@dataclass(frozen=True, eq=False)
class Scan:
    """One scan, its reference label map with names by label, and that map as SimpleITK reads it."""

    name: str
    volume: Volume
    labels: NDArray[Any]
    geometry: Geometry
    names: Mapping[int, str]
    path: Path

    def mask(self, organ: str) -> NDArray[np.bool_]:
        """(D, H, W) bool."""
        return np.asarray(self.labels == next(k for k, name in self.names.items() if name == organ))

    def theirs(self) -> sitk.LabelShapeStatisticsImageFilter:
        """Volumes and centroids by SimpleITK, whose world is LPS as ours."""
        found = sitk.LabelShapeStatisticsImageFilter()
        found.Execute(sitk.Cast(sitk.ReadImage(str(self.path)), sitk.sitkUInt8))
        return found


def scans(data: Path) -> dict[str, Scan]:
    """All three."""
    nifti, petct = data / "nifti" / "abdomen_pelvis_3mm", data / "dicom" / "petct_abdomen_j2k"
    names = {int(k): v for k, v in json.loads((nifti / "labels_total.json").read_text(encoding="utf-8")).items()}
    out = {}
    for name, ct, reference in (
        ("example_ct", nifti / "example_ct.nii.gz", nifti / "example_seg_fast_force_split.nii.gz"),
        ("example_ct_sm", nifti / "example_ct_sm.nii.gz", nifti / "example_seg.nii.gz"),
        ("petct_abdomen_j2k", petct / "dicom", petct / "reference_seg_117class.nii.gz"),
    ):
        volume = read_nifti(ct) if ct.is_file() else load(ct).studies[0].read()
        labels, geometry = read_labels(reference)
        out[name] = Scan(name, volume, labels, geometry, names, reference)
    return out


def volumes_table(found: Mapping[str, Scan], expected: Mapping[str, Mapping[str, float]]) -> str:
    """Volume, centroid and mean HU of organs; ours, SimpleITK's, and the shipped numbers for the short scan."""
    lines = [
        "| scan | organ | mL | SimpleITK mL | shipped mL | centroid LPS, mm | off SimpleITK, mm | mean HU | shipped HU |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for scan in found.values():
        theirs = scan.theirs()
        hu = _hu_on(scan)
        for organ in ORGANS:
            mask = scan.mask(organ)
            if not mask.any():
                lines.append(f"| {scan.name} | {organ} | not in the scan | | | | | | |")
                continue
            number = next(k for k, v in scan.names.items() if v == organ)
            ours = mask_shape(mask, scan.geometry)
            off = np.linalg.norm(ours.centroid_lps - np.array(theirs.GetCentroid(number)))
            shipped = expected[organ] if scan.name == "example_ct_sm" else None
            beside = f"{shipped['volume'] / 1000:.1f}" if shipped else ""
            grey = f"{shipped['intensity']:.1f}" if shipped else ""
            x, y, z = ours.centroid_lps
            lines.append(
                f"| {scan.name} | {organ} | {ours.volume_ml:.1f} | {theirs.GetPhysicalSize(number) / 1000:.1f} | {beside} | "
                f"({x:.1f}, {y:.1f}, {z:.1f}) | {off:.1e} | {hu[mask].mean():.1f} | {grey} |"
            )
    return "\n".join(lines)


def _hu_on(scan: Scan) -> NDArray[Any]:
    """HU on the grid of the labels: the same voxels, possibly in another order."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in scan.labels.shape), indexing="ij"), -1)
    there = np.rint(scan.volume.geometry.to_index(scan.geometry.to_lps(index))).astype(int)
    return np.asarray(scan.volume.hu[there[..., 0], there[..., 1], there[..., 2]])


def shipped_line(scan: Scan, expected: Mapping[str, Mapping[str, float]]) -> str:
    """How far all organs of the short scan lie from the shipped numbers, which belong to masks of another model version."""
    ours = {name: float(scan.mask(name).sum() * scan.geometry.voxel_ml) for name in scan.names.values()}
    both = [n for n in ours if ours[n] >= 1 and expected[n]["volume"] >= 1000]
    off = np.array([abs(ours[n] * 1000 / expected[n]["volume"] - 1) for n in both])
    exact = sum(ours[n] * 1000 == expected[n]["volume"] for n in both)
    one = sum((ours[n] > 0) != (expected[n]["volume"] > 0) for n in ours)
    return (
        f"example_ct_sm, {len(both)} organs of at least 1 mL in both: volumes differ from the shipped ones by a median of "
        f"{np.median(off):.1%} (largest {off.max():.0%}); {exact} are equal; {one} organs are in one of both only."
    )


def top_table(found: Mapping[str, Scan]) -> str:
    """The two reference maps of the same 30 slices against one another, by voxel: by world position they do not meet."""
    whole, top = found["example_ct"], found["example_ct_sm"]
    part = slice(TOP_SLICE, TOP_SLICE + top.labels.shape[0])
    lines = [
        "| organ | Dice | IoU | mean surface distance, mm | HD95, mm | mL fast | mL full |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for organ in ORGANS:
        a, b = whole.mask(organ)[part], top.mask(organ)
        if not (a.any() and b.any()):
            continue
        m = compare(a, b, top.geometry)
        lines.append(
            f"| {organ} | {m.dice:.3f} | {m.iou:.3f} | {m.surface_mm:.2f} | {m.hd95_mm:.1f} | "
            f"{m.volume_ml:.1f} | {m.reference_ml:.1f} |"
        )
    same = (whole.volume.hu[part] == top.volume.hu).mean()
    lift = whole.geometry.to_lps((TOP_SLICE, 0, 0))[2] - top.geometry.to_lps((0, 0, 0))[2]
    lines.append(f"\nThe same slices: {same:.2%} of HU are equal; the short file says they lie {lift:.0f} mm lower.")
    return "\n".join(lines)


def localiser_table(found: Mapping[str, Scan], predictor: Predictor) -> str:
    """Where the localiser puts the kidneys, and what is said with it and with the reference masks."""
    lines = [
        "| scan | region | place from | confidence | off by, mm | side | covered | reasons | answers | kidney in the crop |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for scan in found.values():
        lines += _rows(scan, predictor, "localiser")
        predictor.prepare.given = _reference_places(scan, predictor)
        if predictor.prepare.given:
            lines += _rows(scan, predictor, "masks")
        predictor.prepare.given = {}
    return "\n".join(lines)


def _reference_places(scan: Scan, predictor: Predictor) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for organ in KIDNEYS:
            if scan.mask(organ).any():
                write_nifti(scan.mask(organ), scan.geometry, folder / f"{organ}.nii.gz")
        return places_from_masks(folder, predictor.contract.names) if list(folder.iterdir()) else {}


def _rows(scan: Scan, predictor: Predictor, source: str) -> list[str]:
    result = predictor.predict(scan.volume, explain=False)
    lines = []
    for name in predictor.contract.names:
        region = result.regions[name]
        if source == "masks" and name not in predictor.prepare.given:
            continue
        mask = scan.mask(name) if name in KIDNEYS else None
        off, side, held = "no reference" if mask is None else "not in the scan", "", ""
        if mask is not None and mask.any() and region.place is not None:
            center = mask_shape(mask, scan.geometry).centroid_lps
            off = f"{np.linalg.norm(region.place.center_lps - center):.1f}"
            other = mask_shape(scan.mask(KIDNEYS[1 - KIDNEYS.index(name)]), scan.geometry).centroid_lps
            nearer = np.linalg.norm(region.place.center_lps - center) < np.linalg.norm(region.place.center_lps - other)
            side = "right" if nearer else "wrong"
            if region.geometry is not None:
                held = f"{region.geometry.contains(scan.geometry.to_lps(np.argwhere(mask))).mean():.0%}"
        said = [f.verdict for f in result.findings if f.region == name]
        counts = ", ".join(f"{said.count(v)} {v}" for v in ("present", "absent", "undecided") if v in said)
        reasons = ", ".join(r.code for r in region.reasons) or "none"
        sure = f"{region.place.confidence:.2f}" if region.place else ""
        cells = (scan.name, name, source, sure, off, side, f"{region.covered:.0%}", reasons, counts, held)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", type=Path, default=Path("configs/bundles/phantom-demo"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = scans(options.data)
    statistics = options.data / "nifti" / "abdomen_pelvis_3mm" / "statistics_example_ct_sm.json"
    expected = json.loads(statistics.read_text(encoding="utf-8"))
    print(
        "**Reference masks, read by us**\n",
        volumes_table(found, expected),
        shipped_line(found["example_ct_sm"], expected),
        sep="\n",
    )
    print("\n**The two reference maps of the same 30 slices**\n", top_table(found), sep="\n")
    print(
        "\n**What the phantom-trained demo model makes of them**\n",
        localiser_table(found, Predictor(open_bundle(options.bundle))),
        sep="\n",
    )


if __name__ == "__main__":
    main()
