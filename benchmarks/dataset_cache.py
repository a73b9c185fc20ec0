"""Ways to keep CT volumes in a dataset: size, time to write, to read whole, and to read random crops, cold and warm.

    python benchmarks/dataset_cache.py SOURCE... --out runs/dataset-cache --figure docs/images/dataset-cache.png

SOURCE: NIfTI files or DICOM folders. Formats whose package is not installed are left out and named. Cold means that the
kernel was asked to forget the file's pages before each crop (posix_fadvise), warm that the file was read once before. Cold crops
are timed by the wall clock, everything else by the CPU time of this process, so that a busy machine changes little.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.geometry import Geometry
from medvl.imaging.load import load
from medvl.imaging.nifti import read_nifti, write_nifti
from medvl.imaging.volume_file import as_int16, read_crop, read_volume, write_volume
from medvl.records import Volume

CROP = 96
HU = NDArray[np.int16]
Start = tuple[int, int, int]


@dataclass(frozen=True)
class Way:
    """A format: its name, its package beyond medvl's own (or none), and how to write, read whole and read a crop."""

    name: str
    package: str
    write: Callable[[HU, Path], None]
    read: Callable[[Path], HU]
    crop: Callable[[Path, Start, Start], HU]


def _cut(hu: Any, start: Start, size: Start) -> HU:
    return np.ascontiguousarray(hu[tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))])


def _upright(hu: HU) -> Volume:
    return Volume(hu, Geometry.centered((0, 0, 0), hu.shape, (1.0, 1.0, 1.0)))  # type: ignore[arg-type]


def ours() -> list[Way]:
    """What needs no further package."""

    def npy(hu: HU, path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, hu)

    def nifti(hu: HU, path: Path) -> None:
        part = path.with_suffix(".nii.gz")
        write_nifti(_upright(hu), None, part)
        part.replace(path)

    def read_gz(path: Path) -> HU:
        link = path.with_suffix(".nii.gz")
        if not link.exists():
            link.hardlink_to(path)
        try:
            return read_nifti(link, check_hu=False).hu
        finally:
            link.unlink()

    def mvol(hu: HU, path: Path) -> None:
        write_volume(_upright(hu), path)

    return [
        Way("raw .npy, mapped", "", npy, lambda p: np.array(np.load(p)), lambda p, s, n: _cut(np.load(p, mmap_mode="r"), s, n)),
        Way("NIfTI .nii.gz", "", nifti, read_gz, lambda p, s, n: _cut(read_gz(p), s, n)),
        Way("medvl .mvol", "", mvol, lambda p: read_volume(p).hu, lambda p, s, n: read_crop(p, s, n).hu),
    ]


def hdf5() -> list[Way]:
    """h5py, chunks of 32 x 64 x 64, byte shuffle."""
    import h5py

    def way(filter_name: str, level: int | None) -> Way:
        def write(hu: HU, path: Path) -> None:
            chunks = tuple(min(a, b) for a, b in zip((32, 64, 64), hu.shape, strict=True))
            with h5py.File(path, "w") as file:
                file.create_dataset("hu", data=hu, chunks=chunks, compression=filter_name, compression_opts=level, shuffle=True)

        def read(path: Path) -> HU:
            with h5py.File(path) as file:
                return np.asarray(file["hu"][:])

        def crop(path: Path, start: Start, size: Start) -> HU:
            with h5py.File(path) as file:
                return _cut(file["hu"], start, size)

        return Way(f"HDF5 {filter_name}", "h5py", write, read, crop)

    return [way("gzip", 4), way("lzf", None)]


def blosc() -> list[Way]:
    """blosc2 b2nd arrays, chunks of 32 x 64 x 64, Zstandard; one thread, as all others."""
    import blosc2

    blosc2.set_nthreads(1)

    def way(name: str, filters: list[Any], level: int) -> Way:
        def write(hu: HU, path: Path) -> None:
            chunks = tuple(min(a, b) for a, b in zip((32, 64, 64), hu.shape, strict=True))
            told = {"codec": blosc2.Codec.ZSTD, "clevel": level, "filters": filters, "filters_meta": [0] * len(filters)}
            blosc2.asarray(np.ascontiguousarray(hu), chunks=chunks, cparams=told, urlpath=str(path), mode="w")

        def read(path: Path) -> HU:
            return np.asarray(blosc2.open(str(path), mode="r")[:])

        return Way(name, "blosc2", write, read, lambda p, s, n: _cut(blosc2.open(str(p), mode="r"), s, n))

    f = blosc2.Filter
    return [
        way("blosc2 zstd-1 shuffle", [f.SHUFFLE], 1),
        way("blosc2 zstd-5 bitshuffle", [f.BITSHUFFLE], 5),
        way("blosc2 zstd-1 delta, bitshuffle", [f.DELTA, f.BITSHUFFLE], 1),
    ]


def zarr3() -> list[Way]:
    """zarr 3, one file a chunk of 32 x 64 x 64 in a folder, its default Zstandard."""
    import zarr

    def write(hu: HU, path: Path) -> None:
        chunks = tuple(min(a, b) for a, b in zip((32, 64, 64), hu.shape, strict=True))
        zarr.create_array(str(path), data=hu, chunks=chunks)

    return [
        Way(
            "zarr 3 zstd",
            "zarr",
            write,
            lambda p: np.asarray(zarr.open_array(str(p), mode="r")[:]),
            lambda p, s, n: _cut(zarr.open_array(str(p), mode="r"), s, n),
        )
    ]


def ways() -> tuple[list[Way], list[str]]:
    """All formats that are installed, and the packages that are not."""
    found, absent = ours(), []
    for name, more in (("h5py", hdf5), ("blosc2", blosc), ("zarr", zarr3)):
        try:
            found += more()
        except ImportError:
            absent.append(name)
    return found, absent


def forget(path: Path) -> None:
    """Ask the kernel to drop a file's (or a folder's files') pages."""
    for part in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        descriptor = os.open(part, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def size_of(path: Path) -> int:
    """Bytes of a file or folder."""
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def starts(shape: Start, n: int, seed: int) -> list[tuple[Start, Start]]:
    """Random crops of CROP^3, or of the whole axis where it is shorter."""
    rng, size = np.random.default_rng(seed), tuple(min(CROP, s) for s in shape)
    return [(tuple(int(rng.integers(0, s - k + 1)) for s, k in zip(shape, size, strict=True)), size) for _ in range(n)]  # type: ignore[misc]


def timed(make: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of a call: of this process's CPU, which others on the machine do not lengthen, or by another clock."""
    begun = clock()
    make()
    return clock() - begun


def measure(way: Way, volumes: list[HU], folder: Path, n_crops: int) -> dict[str, Any]:
    """Totals over all volumes; every read is checked against what was written."""
    told = dict.fromkeys(("bytes", "write_s", "read_s", "cold_s", "warm_s"), 0.0)
    for k, hu in enumerate(volumes):
        path = folder / f"{k}.vol"
        told["write_s"] += timed(lambda hu=hu, path=path: way.write(hu, path))  # type: ignore[misc]
        told["bytes"] += size_of(path)
        if not np.array_equal(way.read(path), hu):
            raise ValueError(f"{way.name} does not give back what it was given")
        told["read_s"] += min(timed(lambda path=path: way.read(path)) for _ in range(3))  # type: ignore[misc]
        for start, size in starts(hu.shape, n_crops, k):  # type: ignore[arg-type]
            if not np.array_equal(way.crop(path, start, size), _cut(hu, start, size)):
                raise ValueError(f"{way.name} gives another crop")
            told["warm_s"] += timed(lambda p=path, s=start, n=size: way.crop(p, s, n))  # type: ignore[misc]
            forget(path)
            told["cold_s"] += timed(lambda p=path, s=start, n=size: way.crop(p, s, n), time.perf_counter)  # type: ignore[misc]
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    raw, crops = sum(hu.nbytes for hu in volumes), n_crops * len(volumes)
    return {
        "name": way.name,
        "package": way.package,
        "share_of_raw": round(told["bytes"] / raw, 3),
        "write_mb_s": round(raw / told["write_s"] / 1e6),
        "read_mb_s": round(raw / told["read_s"] / 1e6),
        "warm_crops_s": round(crops / told["warm_s"], 1),
        "cold_crops_s": round(crops / told["cold_s"], 1),
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A bar a format: size, speed of whole reads, speed of crops."""
    from matplotlib.figure import Figure

    from medvl.evaluation.report.style import BLUE, GREY, ORANGE, WIDTH, as_png, styled

    crops = ("warm_crops_s", f"{CROP}³ crops a second, warm")
    shown = (("share_of_raw", "size, share of int16"), ("read_mb_s", "whole volumes, MB/s"), crops)
    colours = [ORANGE if row["name"] == "medvl .mvol" else GREY if row["package"] else BLUE for row in rows]
    with styled():
        figure = Figure(figsize=(WIDTH, 0.26 * len(rows) + 0.9), layout="constrained")
        panels = figure.subplots(1, len(shown), sharey=True)
        for axes, (key, title) in zip(panels, shown, strict=True):
            bars = axes.barh(range(len(rows)), [row[key] for row in rows], color=colours)
            axes.bar_label(bars, fmt="%g", padding=3, fontsize=7)
            axes.set_xlabel(title)
            axes.margins(x=0.18)
            axes.set_xscale("linear" if key == "share_of_raw" else "log")
        panels[0].set_yticks(range(len(rows)), [row["name"] for row in rows])
        panels[0].invert_yaxis()
        figure.suptitle("orange: chosen; blue: no further package; grey: needs another package", fontsize=8)
        path.write_bytes(as_png(figure))


def main() -> None:
    """Measure, print a table in Markdown, write results.json and the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--crops", type=int, default=12)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    entries = [entry for source in options.sources if (entry := load(source).chosen) is not None]
    volumes = [as_int16(entry.read().hu) for entry in entries]
    found, absent = ways()
    rows = [measure(way, volumes, options.out, options.crops) for way in found]
    told = {
        "volumes": [list(v.shape) for v in volumes],
        "raw_mb": sum(v.nbytes for v in volumes) / 1e6,
        "absent": absent,
        "rows": rows,
    }
    (options.out / "results.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    print(f"{len(volumes)} volumes, {told['raw_mb']:.0f} MB; not installed: {', '.join(absent) or 'nothing'}\n")
    print("| format | size, % | write, MB/s | read, MB/s | crops/s, warm | crops/s, cold | package |")
    print(f"|{'---|' * 7}")
    for row in rows:
        print(
            f"| {row['name']} | {100 * row['share_of_raw']:.0f} | {row['write_mb_s']} | {row['read_mb_s']} "
            f"| {row['warm_crops_s']} | {row['cold_crops_s']} | {row['package'] or '-'} |"
        )
    if options.figure:
        draw(rows, options.figure)


if __name__ == "__main__":
    main()
