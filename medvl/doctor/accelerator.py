"""PyTorch and the GPU: is one there, does it compute, and in which precision?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.doctor.check import Check, size

if TYPE_CHECKING:
    import torch

DRIVER = Path("/proc/driver/nvidia/version")
LEAST_FREE = 4 << 30


def check_accelerator() -> Iterator[Check]:
    """The build of PyTorch, then every CUDA device."""
    import torch

    driver = driver_version()
    yield check_build(torch.__version__, torch.version.cuda, torch.cuda.is_available(), driver)
    if not torch.cuda.is_available():
        yield check_processor(Path("/proc/cpuinfo"))
    for index in range(torch.cuda.device_count()):
        yield check_device(torch, index, driver)


def driver_version(path: Path = DRIVER) -> str | None:
    """Version of the NVIDIA driver; None where none is loaded."""
    try:
        found = re.search(r"(\d+\.\d+(?:\.\d+)?)", path.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found.group(1) if found else None


def check_build(version: str, cuda: str | None, available: bool, driver: str | None) -> Check:
    """Does PyTorch see the GPU that the machine has?"""
    facts = {"torch": version, "cuda": cuda, "driver": driver}
    said = f"PyTorch {version}, {f'built for CUDA {cuda}' if cuda else 'built for the processor only'}"
    if available:
        return Check("accelerator", "PyTorch", "ok", f"{said}, driver {driver or 'unknown'}.", facts=facts)
    if driver and not cuda:
        fix = "Install a CUDA build of PyTorch: see docs/how-to/use-a-gpu.md."
        return Check("accelerator", "PyTorch", "warning", f"{said}, but the machine has an NVIDIA driver {driver}.", fix, facts)
    if driver:
        fix = "Take a PyTorch built for this driver, or a newer driver; in a container, start it with --gpus all."
        return Check("accelerator", "PyTorch", "problem", f"{said}, driver {driver}, but no device is usable.", fix, facts)
    return Check("accelerator", "PyTorch", "ok", f"{said}; no GPU, runs on the processor.", facts=facts)


def check_processor(path: Path) -> Check:
    """Which quick instructions the processor has; only told."""
    try:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    flags = set(found.group(1).split()) if found else set()
    known = {"AVX2": "avx2", "AVX-512": "avx512f", "bf16": "avx512_bf16", "AMX": "amx_bf16"}
    held = {name: flag in flags for name, flag in known.items()}
    said = ", ".join(name for name, there in held.items() if there) or "none of AVX2, AVX-512, bf16, AMX"
    return Check("accelerator", "processor instructions", "ok", f"{said}.", facts=held)


def check_device(torch_: Any, index: int, driver: str | None) -> Check:
    """One CUDA device: name, memory, and a product in bfloat16 that is right."""
    name = torch_.cuda.get_device_name(index)
    try:
        free, total = torch_.cuda.mem_get_info(index)
        bf16 = torch_.cuda.is_bf16_supported(including_emulation=False)
        right = computes(torch_, f"cuda:{index}", bf16)
    except RuntimeError as error:
        fix = "Another program may hold the device, or the driver does not fit: look at nvidia-smi."
        return Check("accelerator", f"GPU {index}", "problem", f"{name} does not compute ({type(error).__name__}).", fix)
    facts = {"name": name, "total_bytes": total, "free_bytes": free, "bf16": bf16, "driver": driver}
    said = f"{name}, {size(free)} free of {size(total)}, bf16 {'yes' if bf16 else 'no'}."
    if not right:
        fix = "Do not use this device: look at nvidia-smi -q -d ECC and have it repaired."
        return Check("accelerator", f"GPU {index}", "problem", f"{said} A test product comes out wrong.", fix, facts)
    if free < LEAST_FREE:
        fix = "See with nvidia-smi what else uses the device, or use another one (CUDA_VISIBLE_DEVICES)."
        return Check("accelerator", f"GPU {index}", "warning", said, fix, facts)
    return Check("accelerator", f"GPU {index}", "ok", said, facts=facts)


def computes(torch_: Any, device: str, bf16: bool) -> bool:
    """Whether a product of small whole numbers, which every precision holds exactly, is right on `device`."""
    rows = torch_.arange(64).remainder(3)
    left: torch.Tensor = (rows[:, None] + rows[None]).remainder(3)
    kind = torch_.bfloat16 if bf16 else torch_.float32
    got = (left.to(device, kind) @ left.to(device, kind)).float().cpu()
    return bool((got == (left.double() @ left.double()).float()).all())
