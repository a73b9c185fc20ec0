"""Time from a DICOM folder to a volume in HU: ours beside the readers people use, in one run, as ratios.

    python benchmarks/ingest.py --slices 300 --repeats 5 --markdown docs/explanation/speed-ingest.md

Each reading runs in a process of its own that imports first and then reads once; wall time is that of the reading, peak memory
that of the process over what it had after its imports. Rounds are interleaved, so a busy machine slows all alike; the table has
medians. Files are in the page cache for everyone. dcm2niix writes its result to disk, which is its job; "dcm2niix and load" adds
reading it back. MONAI is timed in the first round only. "bytes" copies the same bytes into one array: the floor for the
uncompressed series.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from series import write_series

Reader = Callable[[Path], np.ndarray]


def ours() -> Reader:
    from medvl.dicom.read import read
    from medvl.dicom.scan import scan

    return lambda folder: read(scan(folder).series[0]).hu


def monai(reader: str) -> Reader:
    from monai.transforms import LoadImage

    load = LoadImage(reader=reader, image_only=True)
    return lambda folder: np.asarray(load(folder))


def simpleitk() -> Reader:
    import SimpleITK

    def run(folder: Path) -> np.ndarray:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        return SimpleITK.GetArrayFromImage(reader.Execute())

    return run


def dicom2nifti() -> Reader:
    import dicom2nifti as d2n
    import nibabel as nib

    def run(folder: Path) -> np.ndarray:
        with tempfile.TemporaryDirectory() as out:
            d2n.dicom_series_to_nifti(str(folder), f"{out}/x.nii", reorient_nifti=False)
            return np.asarray(nib.load(f"{out}/x.nii").dataobj)

    return run


def dcm2niix(*, load: bool) -> Reader:
    import nibabel as nib

    def run(folder: Path) -> np.ndarray:
        with tempfile.TemporaryDirectory() as out:
            command = ["dcm2niix", "-z", "n", "-b", "n", "-f", "x", "-o", out, str(folder)]
            subprocess.run(command, check=True, capture_output=True)
            (path,) = Path(out).glob("*.nii")
            return np.asarray(nib.load(path).dataobj) if load else np.zeros(1)

    return run


def pydicom_loop() -> Reader:
    import pydicom

    def run(folder: Path) -> np.ndarray:
        slices = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda ds: float(ds.ImagePositionPatient[2]))
        out = np.empty((len(slices), slices[0].Rows, slices[0].Columns), np.int16)
        for k, ds in enumerate(slices):
            np.add(ds.pixel_array, np.int16(ds.RescaleIntercept), out=out[k], casting="unsafe")
        return out

    return run


def codec_alone() -> Reader:
    """CharLS on every frame in one thread, nothing else: the codec's own speed."""
    import _CharLS
    from pydicom import dcmread
    from pydicom.encaps import generate_frames

    def run(folder: Path) -> np.ndarray:
        for path in folder.iterdir():
            _CharLS.decode_from_buffer(next(generate_frames(dcmread(path).PixelData, number_of_frames=1)))
        return np.zeros(1)

    return run


def raw_bytes() -> Reader:
    def run(folder: Path) -> np.ndarray:
        paths = list(folder.iterdir())
        sizes = [path.stat().st_size for path in paths]
        out, at = np.empty(sum(sizes), np.uint8), 0
        for path, size in zip(paths, sizes, strict=True):
            with path.open("rb", buffering=0) as file:
                file.readinto(out[at : at + size].data)
            at += size
        return out

    return run


READERS: dict[str, Callable[[], Reader]] = {
    "medvl": ours,
    "bytes": raw_bytes,
    "codec alone, one thread": codec_alone,
    "dcm2niix": lambda: dcm2niix(load=False),
    "dcm2niix and load": lambda: dcm2niix(load=True),
    "pydicom loop": pydicom_loop,
    "SimpleITK": simpleitk,
    "dicom2nifti": dicom2nifti,
    "MONAI LoadImage (ITKReader)": lambda: monai("ITKReader"),
    "MONAI LoadImage (PydicomReader)": lambda: monai("PydicomReader"),
}
ONLY = {"bytes": "uncompressed", "codec alone, one thread": "jpegls"}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(name: str, folder: Path) -> None:
    """Read once and print seconds, CPU seconds with children, peak MiB above the imports."""
    import warnings

    warnings.simplefilter("ignore")
    reader = READERS[name]()
    before, wall, cpu = peak_mib(), time.perf_counter(), os.times()
    volume = reader(folder)
    wall, after = time.perf_counter() - wall, os.times()
    spent = sum(after[:4]) - sum(cpu[:4])
    print(json.dumps({"wall": wall, "cpu": spent, "peak": peak_mib() - before, "shape": list(volume.shape)}))


def measure(name: str, folder: Path) -> dict[str, float] | None:
    command = [sys.executable, __file__, "--child", name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"{name} failed on {folder.name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(results: dict[str, list[dict[str, float]]]) -> list[str]:
    """Markdown rows of medians and ratios to ours."""
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in ("wall", "cpu", "peak")}
        for name, runs in results.items()
        if runs
    }
    base = medians["medvl"]["wall"]
    lines = ["| reader | seconds | times ours | CPU s | peak MiB |", "|---|---|---|---|---|"]
    for name, row in sorted(medians.items(), key=lambda pair: pair[1]["wall"]):
        peak = "in its own process" if name == "dcm2niix" else f"{row['peak']:.0f}"
        lines.append(f"| {name} | {row['wall']:.2f} | {row['wall'] / base:.2f} | {row['cpu']:.2f} | {peak} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--readers", nargs="*", help="only these")
    parser.add_argument("--markdown", type=Path, help="also write the page here")
    parser.add_argument("--child", nargs=2, metavar=("READER", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], Path(given.child[1]))
        return
    names = [name for name in READERS if not given.readers or name in given.readers]
    names = [name for name in names if "dcm2niix" not in name or shutil.which("dcm2niix")]
    with tempfile.TemporaryDirectory() as folder:
        write_series(Path(folder), given.slices)
        page = [run_all(Path(folder) / kind, kind, names, given.repeats) for kind in ("uncompressed", "jpegls")]
    text = report(page, given)
    print(text)
    if given.markdown:
        given.markdown.write_text(text)


def run_all(folder: Path, kind: str, names: list[str], repeats: int) -> list[str]:
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names if ONLY.get(name, kind) == kind}
    for path in folder.iterdir():
        path.read_bytes()
    for round_ in range(repeats):
        for name, runs in results.items():
            if round_ and name.startswith("MONAI"):
                continue  # minutes a round; once tells enough
            run = measure(name, folder)
            print(f"{kind} {round_ + 1}/{repeats} {name}: {run}", file=sys.stderr)
            if run is not None:
                runs.append(run)
    return [f"## {'Uncompressed' if kind == 'uncompressed' else 'JPEG-LS lossless'}", "", *table(results), ""]


def report(page: list[list[str]], given: argparse.Namespace) -> str:
    cores = len(os.sched_getaffinity(0))
    command = (
        f"benchmarks/ingest.py --slices {given.slices} --repeats {given.repeats} --markdown docs/explanation/speed-ingest.md"
    )
    intro = [
        "# How fast a DICOM folder becomes a volume",
        "",
        f"512 x 512 x {given.slices} 16-bit slices to a volume in HU: medians of {given.repeats} interleaved rounds on {cores} "
        f"cores, load {os.getloadavg()[0]:.1f} at the end. Made by",
        "",
        f"    python {command}",
        "",
        "Ratios, not seconds, are the message. Every reader starts in a process of its own with its imports done and the files "
        "in the page cache. Peak MiB is what the reading added to that process; one int16 volume of this size takes "
        f"{512 * 512 * given.slices * 2 / 2**20:.0f} MiB. A reader that is missing could not read the series here; "
        "MONAI was timed once.",
        "",
    ]
    return "\n".join(intro + [line for part in page for line in part])


if __name__ == "__main__":
    main()
