"""What a stage of training took and how well it used the machine."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch

from medvl.files import replace_text

# Dense bf16 peaks from the makers' data sheets, FLOP/s; the first name found in the device's own name counts.
PEAKS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "A30": 165e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 6000 Ada": 364e12,
}


@dataclass(frozen=True)
class Receipt:
    """One stage as it was trained, over all its starts.

    Args:
        steps: optimiser steps taken; step: the step of the weights that were kept, counted from 1.
        loss: of the last step; best: first validation measure of the kept weights.
        stopped_early: whether patience ran out.
        samples_per_s: items of the group `samples` (or of the first group) in all ranks together, per second of stepping.
        wait_share: share of the time of stepping in which this rank waited for data.
        wall_s: in `fit`; cpu_s: of the first rank's process; both summed over starts, up to their last checkpoints.
        peak_memory_bytes: of the accelerator, or else the largest resident set of the process so far.
        step_flop: operations of one step on one rank, forward and backward; flop_per_s: achieved while not waiting for data.
        peak_flop_per_s: of the device; mfu: achieved share of it.
        notes: why a value is None.
        energy_j: of the first rank's accelerator since the last start.
        sha256: of the kept weights.
    """

    steps: int
    step: int
    loss: float
    best: float | None
    stopped_early: bool
    samples_per_s: float
    wait_share: float
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int
    step_flop: int | None
    flop_per_s: float | None
    peak_flop_per_s: float | None
    mfu: float | None
    energy_j: float | None
    notes: dict[str, str]
    device: str
    torch: str
    world_size: int
    sha256: str

    def write(self, path: Path) -> None:
        """Keep as JSON, in one move."""
        replace_text(path, json.dumps(asdict(self), indent=1))

    @staticmethod
    def read(path: Path) -> Receipt:
        """What `write` kept."""
        return Receipt(**json.loads(path.read_text(encoding="utf-8")))


class Meter:
    """Reads the machine while a stage runs on a device; `precision` names the peak to compare with."""

    def __init__(self, device: torch.device, precision: str) -> None:
        self.device, self.precision = device, precision
        self.notes: dict[str, str] = {}
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._energy = self._joules()

    def memory(self) -> int:
        """Peak bytes so far."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def energy(self) -> float | None:
        """Joules of the accelerator since the meter was made."""
        now = self._joules()
        return None if now is None or self._energy is None else now - self._energy

    def peak(self) -> float | None:
        """Dense FLOP/s that the device can reach at best, from data sheets or, on a processor, measured."""
        if self.device.type != "cuda":
            return _gemm_peak(torch.get_num_threads(), self.precision)
        name = torch.cuda.get_device_name(self.device)
        known = next((peak for part, peak in PEAKS.items() if part in name), None)
        if known is None:
            self.notes["mfu"] = f"no data-sheet peak is listed for {name}"
        elif self.precision != "bf16":
            self.notes["mfu"] = "peaks are listed for bf16, and this stage ran in fp32"
            return None
        return known

    def name(self) -> str:
        """Of the device."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"cpu, {torch.get_num_threads()} threads"

    def _joules(self) -> float | None:
        if self.device.type != "cuda":
            self.notes["energy_j"] = "no accelerator whose energy could be read"
            return None
        if find_spec("pynvml") is None:
            self.notes["energy_j"] = "pynvml is not installed: pip install nvidia-ml-py"
            return None
        nvml = import_module("pynvml")
        try:
            nvml.nvmlInit()
            uuid = f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
        except nvml.NVMLError as error:
            self.notes["energy_j"] = f"NVML: {error}"
            return None


@lru_cache
def _gemm_peak(threads: int, precision: str) -> float:
    """FLOP/s of the fastest of several matrix products; `threads` only tells one measurement from another."""
    n = 768
    a = torch.ones(n, n, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    return 2 * n**3 / min(times)
