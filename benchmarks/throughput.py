"""Whole runs of `medvl` beside the same stages alone and beside a plain MONAI loop, in one process tree, in turns.

    python benchmarks/throughput.py --studies FOLDER --bundle phantom-demo --n 12 --rounds 3

FOLDER holds one DICOM study a folder (`medvl phantom --out P --n 30` writes `P/dicom`). The plain loop does one study after the
other: `LoadImaged` (PydicomReader), `EnsureChannelFirstd`, `Orientationd`, `Spacingd`, `ScaleIntensityRanged`, a padded
`SpatialCropd` to every region, then the very same towers, one region at a time; with evidence it draws each heat map from a
reading of its own and scores every version of the deletion test by itself. It is given the files of the right series and the
centres of the regions for nothing, finds no studies, checks no series and writes nothing. It has one thread; a run has the
processes that `medvl infer` starts on this machine, of one thread each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import (  # type: ignore[attr-defined]
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    ScaleIntensityRanged,
    Spacingd,
    SpatialCropd,
)
from numpy.typing import NDArray

from medvl.batch.hand import Hand
from medvl.batch.options import Options
from medvl.batch.run import Run
from medvl.imaging.load import load
from medvl.inference.answers import FindingResult, RegionResult
from medvl.inference.evidence import elsewhere, peak_of, without_ball
from medvl.inference.explaining import spread_out
from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle
from medvl.records import Volume
from medvl_pipelines.built_in import bundle_folder
from medvl_pipelines.station import cores, readers_for

FILL = -1024.0


class Warm(Hand):
    """A reading process that has worked already, as it has after the first study of a night."""

    greeted = False

    def greet(self, greeting: Mapping[str, Any]) -> None:
        """Only once."""
        if not self.greeted:
            super().greet(greeting)
        self.greeted = True


def run_seconds(predictor: Predictor, studies: Sequence[Path], explain: bool, hands: Sequence[Hand]) -> dict[str, float]:
    """A whole run from folders to results, its readers started before, as in a run of many studies."""
    with tempfile.TemporaryDirectory() as out:
        options = Options(readers=len(hands), explain=explain)
        run = Run(predictor, Path(out), options, hands=[*hands])
        started = time.perf_counter()
        summary = run.go(studies)
        seconds = time.perf_counter() - started
        if summary.statuses["done"] != len(studies):
            raise SystemExit(f"only {summary.statuses['done']} of {len(studies)} studies were done: {dict(summary.reasons)}")
        return {"whole": seconds}


def stages_alone(predictor: Predictor, studies: Sequence[Path], explain: bool) -> dict[str, float]:
    """Seconds of finding, reading and preparing everything, and of the model over everything, each with the machine to itself."""
    started = time.perf_counter()
    entries = [entry for path in studies if (entry := load(path).chosen) is not None]
    prepared = [predictor.prepare(entry.read()) for entry in entries]
    read = time.perf_counter()
    for first in range(0, len(prepared), 4):
        predictor.answer(prepared[first : first + 4], explain=explain)
    return {"reading alone": read - started, "model alone": time.perf_counter() - read}


class PlainLoop:
    """MONAI's usual chain, one study after another.

    Args:
        predictor: whose towers and contract are used.
        centers: study to region to centre in LPS mm, known beforehand.
        series: study to a folder that holds nothing but the files of the series to use.
        once: load a study once and respace it once for each spacing, instead of once for each region.
    """

    once = False

    def __init__(
        self,
        predictor: Predictor,
        centers: Mapping[Path, Mapping[str, NDArray[np.float64]]],
        series: Mapping[Path, Path],
    ) -> None:
        self.predictor, self.centers, self.series = predictor, centers, series
        self._kept: dict[tuple[Path, tuple[float, ...]], Any] = {}

    def _spaced(self, study: Path, spacing: tuple[float, ...]) -> Any:
        """(1, I, J, K) RAS image of a study on a spacing; an empty one is the scanner's own."""
        if (study, spacing) in self._kept:
            return self._kept[study, spacing]
        if spacing:
            image = Spacingd("image", pixdim=spacing, mode="bilinear")({"image": self._spaced(study, ())})["image"]
        else:
            chain = [
                LoadImaged("image", reader="PydicomReader", image_only=True),
                EnsureChannelFirstd("image"),
                Orientationd("image", axcodes="RAS", labels=None),
            ]
            image = Compose(chain)({"image": str(self.series[study])})["image"]
        if self.once:
            self._kept = {key: value for key, value in self._kept.items() if key[0] == study} | {(study, spacing): image}
        return image

    def crop(self, study: Path, region: str) -> NDArray[np.float32]:
        """(C, D, H, W) windowed crop of a region around its known centre."""
        spec, center = self.predictor.contract[region], self.centers[study][region]
        shape, spacing = spec.grid_dhw[::-1], spec.spacing_mm[::-1]
        image = self._spaced(study, tuple(spacing))
        ras = np.append(np.array(center) * [-1, -1, 1], 1.0)
        middle = np.rint((np.linalg.inv(np.asarray(image.affine)) @ ras)[:3]).astype(int)
        low = middle - np.array(shape) // 2
        before = np.maximum(0, -low)
        after = np.maximum(0, low + shape - np.array(image.shape[1:]))
        pads = [side for pair in zip(before, after, strict=True) for side in pair]
        padded = torch.nn.functional.pad(image.as_tensor()[None], [int(p) for p in reversed(_torch_order(pads))], value=FILL)[0]
        start = low + before
        cut = SpatialCropd("image", roi_start=start, roi_end=start + shape)({"image": padded})["image"]
        channels = [
            ScaleIntensityRanged("image", a_min=a, a_max=b, b_min=0.0, b_max=1.0, clip=True)({"image": cut})["image"]
            for a, b in spec.windows_hu
        ]
        ijk = np.concatenate([np.asarray(c) for c in channels])
        return np.ascontiguousarray(
            np.flip(ijk.transpose(0, 3, 2, 1), (2, 3)), dtype=np.float32
        )  # RAS (i, j, k) to D, H, W of LPS

    def __call__(
        self, study: Path, findings: Sequence[FindingResult], regions: Mapping[str, RegionResult], explain: bool
    ) -> None:
        """One study; `findings` and `regions` say what is to be explained, so that both ways explain the same."""
        for region in self.centers[study]:
            pixels = torch.from_numpy(self.crop(study, region))[None]
            self.predictor.answering.read(pixels, self.predictor.number_of(region))
        for found in findings if explain else ():
            if found.evidence is not None:
                self._explain(found, regions[found.region])

    def _explain(self, found: FindingResult, region: RegionResult) -> None:
        predictor, kind = self.predictor, self.predictor.number_of(region.name)
        assert region.hu is not None and region.geometry is not None
        shares = predictor.answering.heat(found.finding, region.name, predictor.pixels(region.hu, region.name)[None], kind)
        peak = peak_of(spread_out(shares, region.hu.shape)[0])
        places = (peak, *elsewhere(region.hu.shape, region.geometry, peak))
        for version in (region.hu, *(without_ball(region.hu, region.geometry, place) for place in places)):
            predictor.answering.read(predictor.pixels(version, region.name)[None], kind)


def _torch_order(pads: Sequence[int]) -> list[int]:
    """Sides of axes i, j, k as (i after, i before, j after, ...), which reversed is what torch wants: the last axis first."""
    return [side for axis in range(3) for side in (pads[2 * axis + 1], pads[2 * axis])]


def _series_alone(study: Path, room: Path) -> Path:
    """A folder of links to the files of the series that is used."""
    entry, folder = load(study).chosen, room / study.name
    if not folder.exists() and entry is not None:
        folder.mkdir()
        for name in entry.names:
            (folder / Path(name).name).symlink_to((study / name).resolve())
    return folder


def check_crops(loop: PlainLoop, study: Path, regions: Mapping[str, RegionResult]) -> float:
    """Smallest correlation between the loop's crops and ours over the regions of a study: both must see the same anatomy."""
    found = []
    for name in loop.centers[study]:
        region = regions[name]
        assert region.hu is not None
        ours = loop.predictor.pixels(region.hu, name).numpy().ravel()
        found.append(float(np.corrcoef(ours, loop.crop(study, name).ravel())[0, 1]))
    return min(found)


def measure(predictor: Predictor, studies: Sequence[Path], rounds: int, explain: bool, room: Path) -> dict[str, Any]:
    """Medians over rounds, each way in turn in each round."""
    volumes: dict[Path, Volume] = {path: entry.read() for path in studies if (entry := load(path).chosen) is not None}
    results = {path: predictor.predict(volume, explain=explain) for path, volume in volumes.items()}
    centers = {
        path: {n: r.place.center_lps for n, r in result.regions.items() if r.hu is not None and r.place is not None}
        for path, result in results.items()
    }
    loop = PlainLoop(predictor, centers, {path: _series_alone(path, room) for path in studies})
    readers = readers_for(cores(), "cpu", explain=explain)
    agreement = min(check_crops(loop, path, results[path].regions) for path in studies[:4] if centers[path])

    def plain(once: bool) -> dict[str, float]:
        loop.once, started = once, time.perf_counter()
        for path in studies:
            loop(path, results[path].findings, results[path].regions, explain)
        loop.once, loop._kept = False, {}
        return {"loop that loads once" if once else "plain loop": time.perf_counter() - started}

    def whole() -> dict[str, float]:
        hands = [Warm() for _ in range(readers)]
        for hand in hands:
            hand.start()
            _warm(hand, predictor, studies[0])
        torch.set_num_threads(1)
        return run_seconds(predictor, studies, explain, hands)

    def alone() -> dict[str, float]:
        torch.set_num_threads(1)
        return stages_alone(predictor, studies, explain)

    ways: list[Callable[[], dict[str, float]]] = [whole, alone, lambda: plain(False), lambda: plain(True)]
    seen: dict[str, list[float]] = {}
    for _ in range(rounds):
        for way in ways:
            for name, seconds in way().items():
                seen.setdefault(name, []).append(seconds)
    median = {name: statistics.median(values) for name, values in seen.items()}
    slowest = [max(a, b) for a, b in zip(seen["reading alone"], seen["model alone"], strict=True)]
    return {
        "studies": len(studies),
        "explain": explain,
        "readers": readers,
        "seconds": {name: round(value, 2) for name, value in median.items()},
        "all seconds": {name: [round(v, 2) for v in values] for name, values in seen.items()},
        "whole / slowest stage alone": round(statistics.median(w / s for w, s in zip(seen["whole"], slowest, strict=True)), 2),
        **{
            f"{name} / whole": round(statistics.median(p / w for p, w in zip(seen[name], seen["whole"], strict=True)), 2)
            for name in ("plain loop", "loop that loads once")
        },
        "studies an hour": round(3600 * len(studies) / median["whole"]),
        "smallest correlation of crops": round(agreement, 3),
    }


def _warm(hand: Hand, predictor: Predictor, study: Path) -> None:
    """Have the child load its libraries and its localiser."""
    hand.greet(Options().greeting(predictor.bundle.folder, bytes(32)))
    source = hand.ask({"op": "find", "path": str(study)}, 600)[0]["studies"][0]["source"]
    hand.ask({"op": "read", "source": source, "series": None, "spool": "", "study_bytes": 0}, 600)


def main() -> None:
    """Print both receipts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=Path, required=True)
    parser.add_argument("--bundle", default="phantom-demo")
    parser.add_argument("--n", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    predictor = Predictor(open_bundle(bundle_folder(given.bundle)))
    studies = sorted(path for path in given.studies.iterdir() if path.is_dir())[: given.n]
    with tempfile.TemporaryDirectory() as room:
        for explain in (False, True):
            print(json.dumps(measure(predictor, studies, given.rounds, explain, Path(room)), indent=1), flush=True)


if __name__ == "__main__":
    main()
