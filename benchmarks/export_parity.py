"""Which encoder families leave as ONNX and as `torch.export`, how far their numbers then are, and how fast onnxruntime is.

    python benchmarks/export_parity.py --out parity.json

Every registered family with its evidence pool and projection, seeded and untrained, on crops of phantoms. Times are medians of
runs that alternate between torch and onnxruntime in one process, with one thread each, so that their ratio means something on a
busy machine. The table in docs/explanation/export-parity.md is what this prints.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from medvl.exchange.graphs import measure, to_archive, to_onnx
from medvl.exchange.sides import ImageSide, Side
from medvl.imaging.phantom.render import region_centers, render
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.preprocess import RegionSpec, window
from medvl.models.clip import RegionClip
from medvl.models.config import ClipConfig, ImageTowerConfig, TextTowerConfig
from medvl.models.encoders.registry import ENCODERS
from medvl.models.tokenizer import train_tokenizer

GRID = (64, 64, 64)
WINDOWS = ((-150.0, 250.0), (-200.0, 1000.0))
ROUNDS = 7
VIT = {"patch": 16, "width": 384, "depth": 6, "heads": 6}


def crops(n: int) -> torch.Tensor:
    """(n, 2, 64, 64, 64) windows around the left kidneys of n phantoms."""
    spec = RegionSpec("kidney_left", GRID, (2.0, 2.0, 2.0), WINDOWS)
    found = []
    for number in range(n):
        who = sample_patient(43, number)
        hu = render(who, spec.geometry(region_centers(who)["kidney_left"])).hu
        found.append(torch.from_numpy(window(hu, WINDOWS)))
    return torch.stack(found)


def side_of(name: str, pixels: torch.Tensor) -> Side:
    """An untrained image side of one family."""
    torch.manual_seed(0)
    options = VIT if name == "vit" else {}
    image = ImageTowerConfig(name=name, grid_dhw=GRID, options=options)
    text = TextTowerConfig(vocab_size=40, hidden_size=8, layers=1, heads=1, intermediate_size=8)
    clip = RegionClip(ClipConfig(image=image, text=text), train_tokenizer(["a b c"] * 3, 40)).eval()
    batch = Dim("batch", min=1, max=64)
    inputs = {"pixel_values": pixels, "kind": torch.arange(len(pixels)) % 2}
    dynamic = {"pixel_values": {0: batch}, "kind": {0: batch}}
    other = {key: value[:1] for key, value in inputs.items()}
    return Side("image", ImageSide(clip).eval(), inputs, ("image_embeds", "pooled"), dynamic, other)


def times(side: Side, run: Any) -> tuple[float, float]:
    """Median seconds of torch and of onnxruntime for the same batch, turn and turn about."""
    spent: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS + 1):
        for which, call in enumerate((lambda: side.module(*side.inputs.values()), lambda: run(side.inputs))):
            start = time.perf_counter()
            with torch.no_grad():
                call()
            if number:
                spent[which].append(time.perf_counter() - start)
    return statistics.median(spent[0]), statistics.median(spent[1])


def row(name: str, pixels: torch.Tensor) -> dict[str, Any]:
    """What one family does; a failure is told in words."""
    side = side_of(name, pixels)
    found: dict[str, Any] = {"encoder": name, "parameters": sum(p.numel() for p in side.module.image.parameters())}
    with tempfile.TemporaryDirectory() as scratch:
        for kind, write in (("onnx", to_onnx), ("torch_export", to_archive)):
            path = Path(scratch) / f"{kind}.pt2"
            try:
                run = write(side, path)
            except Exception as error:  # whatever an exporter raises is the finding
                found[kind] = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"}
                continue
            gaps = measure(side, run)
            found[kind] = {"max_abs": max(g.max_abs for g in gaps), "max_rel": max(g.max_rel for g in gaps)}
            found[kind]["cosine"] = min(g.cosine for g in gaps)
            if kind == "onnx":
                ours, theirs = times(side, run)
                found[kind] |= {"torch_s": ours, "onnxruntime_s": theirs, "speed": ours / theirs}
    return found


def line(found: dict[str, Any]) -> str:
    """A row of Markdown."""
    onnx, other = found["onnx"], found["torch_export"]
    first = onnx.get("error") or f"{onnx['max_rel']:.0e} | {1 - onnx['cosine']:.0e} | {onnx['speed']:.2f}"
    second = other.get("error") or f"{other['max_rel']:.0e}"
    return (
        f"| {found['encoder']} | {found['parameters'] / 1e6:.1f} | {first if 'speed' in onnx else first + ' | | '} | {second} |"
    )


def main() -> None:
    """Print the table as Markdown and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=["region_resnet", *ENCODERS])
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    pixels = crops(2)
    print(
        "| encoder | million weights | ONNX: largest difference | ONNX: 1 - cosine | speed | torch.export: largest difference |"
    )
    print("|---|---|---|---|---|---|")
    rows = []
    for name in wanted.only:
        rows.append(row(name, pixels))
        print(line(rows[-1]), flush=True)
    if wanted.out:
        wanted.out.write_text(
            json.dumps({"grid": GRID, "torch": torch.__version__, "rows": rows}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
