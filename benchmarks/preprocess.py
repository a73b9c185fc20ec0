"""A scan in memory to a model grid: our one resampling against MONAI's usual chain and one SimpleITK resample.

    python benchmarks/preprocess.py [--size small] [--rounds 5] [--threads 2]

Each run is a fresh process. The volume is written once as NIfTI (uncompressed int16) and loaded by every method; time and memory
are counted from the loaded int16 volume on, except for MONAI, whose chain starts with LoadImage: both its time with and its time
without loading are shown. Rounds are interleaved and the median of each method is printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

METHODS = ("medvl", "SimpleITK, one resample", "MONAI, without loading", "MONAI, with LoadImage")
SIZES = {"full": ((300, 512, 512), (1.0, 0.75, 0.75), (160, 96)), "small": ((40, 64, 96), (3.0, 2.5, 2.0), (48, 32))}
SPACING = 1.5
WINDOW = (-160.0, 240.0)


class Peak:
    """Highest resident memory of this process above what it was on entry, in MiB, sampled every 2 ms."""

    def __enter__(self):
        self._base = self._highest = _resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self._begin
        self._done.set()
        self._thread.join()
        self.mib = (max(self._highest, _resident()) - self._base) / 2**20

    def _watch(self):
        while not self._done.wait(0.002):
            self._highest = max(self._highest, _resident())


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def write_phantom(path, size):
    """A body-like ellipsoid with organs and noise, as an uncompressed int16 NIfTI."""
    import numpy as np

    from medvl.geometry import Geometry
    from medvl.imaging.nifti import write_nifti

    shape, spacing, _ = SIZES[size]
    generator = np.random.default_rng(0)
    hu = np.empty(shape, np.int16)
    rows, columns = (np.linspace(-1, 1, n)[:, None] if i == 0 else np.linspace(-1, 1, n)[None] for i, n in enumerate(shape[1:]))
    for d, z in enumerate(np.linspace(-1, 1, shape[0])):
        plane = np.where(rows**2 / 0.5 + columns**2 / 0.8 < 1, -90.0, -1000.0)
        plane[rows**2 / 0.35 + columns**2 / 0.6 < 1] = 50
        plane[(rows - 0.2) ** 2 + (columns - 0.4) ** 2 + z**2 < 0.06] = 180
        hu[d] = plane + generator.normal(0, 12, plane.shape)
    write_nifti(hu, Geometry.centered((0, 0, 0), shape, spacing), path)


def run_medvl(path, grid):
    from medvl.imaging.nifti import read_nifti
    from medvl.imaging.preprocess import RegionSpec, preprocess

    volume = read_nifti(path, check_hu=False)
    spec = RegionSpec("whole", (grid,) * 3, (SPACING,) * 3, (WINDOW,))
    with Peak() as peak:
        pixels = preprocess(volume, volume.geometry.center_lps, spec).pixels
    return peak, pixels.std()


def run_simpleitk(path, grid, threads):
    import numpy as np
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    image = sitk.ReadImage(str(path))
    half = (grid - 1) / 2 * SPACING
    with Peak() as peak:
        center = np.array(image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()]))
        size, origin = [grid] * 3, (center - half).tolist()
        made = sitk.Resample(
            image, size, sitk.Transform(), sitk.sitkLinear, origin, [SPACING] * 3, np.eye(3).ravel().tolist(), -1024.0
        )
        made = sitk.IntensityWindowing(sitk.Cast(made, sitk.sitkFloat32), *WINDOW, 0.0, 1.0)
        pixels = sitk.GetArrayFromImage(made)
    return peak, pixels.std()


def run_monai(path, grid, with_loading, threads):
    import torch
    from monai import transforms as t

    torch.set_num_threads(threads)
    load = t.Compose([t.LoadImage(image_only=True), t.EnsureChannelFirst()])
    rest = t.Compose(
        [
            t.Orientation(axcodes="RAS"),
            t.Spacing(pixdim=(SPACING,) * 3, mode="bilinear"),
            t.ScaleIntensityRange(*WINDOW, 0.0, 1.0, clip=True),
            t.CropForeground(),
            t.ResizeWithPadOrCrop((grid,) * 3),
        ]
    )
    if with_loading:
        with Peak() as peak:
            made = rest(load(path))
    else:
        image = load(path)
        with Peak() as peak:
            made = rest(image)
    return peak, float(made.std())


def run_child(method, path, grid, threads):
    """Measure one method here and print one JSON line."""
    if method == "medvl":
        peak, spread = run_medvl(path, grid)
    elif method.startswith("SimpleITK"):
        peak, spread = run_simpleitk(path, grid, threads)
    else:
        peak, spread = run_monai(path, grid, "with LoadImage" in method, threads)
    print(json.dumps({"seconds": peak.seconds, "mib": peak.mib, "spread": float(spread)}))


def measure(path, grids, rounds, threads):
    """{(method, grid): [result, ...]} of interleaved rounds, each in its own process."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    results = {(method, grid): [] for grid in grids for method in METHODS}
    for _ in range(rounds):
        for (method, grid), found in results.items():
            command = [
                sys.executable,
                __file__,
                "--child",
                method,
                "--path",
                str(path),
                "--grid",
                str(grid),
                "--threads",
                str(threads),
            ]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    return results


def print_table(results, grids):
    for grid in grids:
        print(f"\nto {grid}x{grid}x{grid} at {SPACING} mm\n")
        print("| method | seconds, median (range) | x medvl | peak above volume, MiB |\n|---|---|---|---|")
        ours = statistics.median(result["seconds"] for result in results["medvl", grid])
        for method in METHODS:
            runs = [result["seconds"] for result in results[method, grid]]
            middle, mib = statistics.median(runs), statistics.median(result["mib"] for result in results[method, grid])
            print(f"| {method} | {middle:.3f} ({min(runs):.3f} to {max(runs):.3f}) | {middle / ours:.1f} | {mib:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    parser.add_argument("--grid", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.child, options.path, options.grid, options.threads)
        return
    shape, spacing, grids = SIZES[options.size]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nii"
        write_phantom(path, options.size)
        print(f"{'x'.join(map(str, shape))} int16 at {spacing} mm, {options.threads} threads, {options.rounds} rounds")
        print_table(measure(path, grids, options.rounds, options.threads), grids)


if __name__ == "__main__":
    main()
