"""Processor, memory, accelerator and limits of this machine, as this process may use them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from medvl.doctor.check import Check, size

GIB = 1 << 30
LEAST_MEMORY, GOOD_MEMORY = 2 * GIB, 6 * GIB
LEAST_FILES, GOOD_FILES = 256, 1024
GOOD_SHM = 256 << 20
CGROUP = Path("/sys/fs/cgroup")


def check_machine() -> Iterator[Check]:
    """Cores, memory, open files, shared memory, clock, fonts."""
    yield check_cores(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, cpu_quota())
    yield check_memory(*memory())
    yield check_open_files(open_files())
    shm = Path("/dev/shm")  # noqa: S108 - looked at, not written
    yield check_shared(shutil.disk_usage(shm).total if shm.is_dir() else None)
    yield check_clock(time.time(), _newest_own_file(), time.tzname[time.localtime().tm_isdst > 0], time.localtime().tm_gmtoff)
    yield check_font()


def cgroups(root: Path = CGROUP, told: Path = Path("/proc/self/cgroup")) -> Iterator[Path]:
    """Folders of this process's control group (version 2) and all above it."""
    try:
        line = next(x for x in told.read_text(encoding="utf-8").splitlines() if x.startswith("0::"))
    except (OSError, StopIteration):
        line = "0::/"
    folder = root / line[3:].strip("/")
    yield from (f for f in (folder, *folder.parents) if f == root or root in f.parents)


def cpu_quota(root: Path = CGROUP, told: Path = Path("/proc/self/cgroup")) -> float | None:
    """Cores that control groups allow; None where they set no limit."""
    found = []
    for folder in cgroups(root, told):
        words = _words(folder / "cpu.max")
        if len(words) == 2 and words[0].isdigit():
            found.append(int(words[0]) / int(words[1]))
    old = [_words(root / "cpu" / f"cpu.cfs_{what}_us") for what in ("quota", "period")]
    if all(old) and int(old[0][0]) > 0:
        found.append(int(old[0][0]) / int(old[1][0]))
    return min(found) if found else None


def memory(
    root: Path = CGROUP, told: Path = Path("/proc/self/cgroup"), info: Path = Path("/proc/meminfo")
) -> tuple[int, int, bool]:
    """Bytes that may be used in all, bytes that are free now, and whether a control group sets the limit.

    Raises:
        OSError: the machine tells its memory in no way known here.
    """
    if info.is_file():
        lines = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line)
        total, free = (int(lines[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
    else:
        page = os.sysconf("SC_PAGE_SIZE")
        total = free = page * os.sysconf("SC_PHYS_PAGES")
    limited = False
    pairs = [(f / "memory.max", f / "memory.current") for f in cgroups(root, told)]
    pairs.append((root / "memory" / "memory.limit_in_bytes", root / "memory" / "memory.usage_in_bytes"))
    for most, used in pairs:
        cap, now = _words(most), _words(used)
        if cap and cap[0].isdigit() and int(cap[0]) < total:
            total, limited = int(cap[0]), True
            free = min(free, total - int(now[0]) if now else total)
    return total, max(free, 0), limited


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []


def check_cores(n: int, quota: float | None) -> Check:
    """Cores this process may run on, and the share of them that it gets."""
    usable = min(n, quota or n)
    said = f"{n} core{'s' * (n != 1)}" + (f", limited to {quota:g} by the container" if quota is not None and quota < n else "")
    facts = {"cores": n, "quota": quota}
    if usable < 2:
        fix = "Give it two cores or more, or expect reading and inference to take turns."
        return Check("machine", "processor", "warning", f"{said}.", fix, facts)
    return Check("machine", "processor", "ok", f"{said}.", facts=facts)


def check_memory(total: int, free: int, limited: bool) -> Check:
    """Enough memory for a scan of 1000 slices (0.5 GiB as int16, several times that while it is read) and the model."""
    said = f"{size(free)} free of {size(total)}{' that the container may use' if limited else ''}."
    facts = {"total_bytes": total, "free_bytes": free, "limited_by_container": limited}
    if free < LEAST_MEMORY:
        fix = f"Free memory, or give the container more: {size(LEAST_MEMORY)} is the least, {size(GOOD_MEMORY)} is good."
        return Check("machine", "memory", "problem", said, fix, facts)
    if free < GOOD_MEMORY:
        fix = f"Long scans may not fit; have {size(GOOD_MEMORY)} free, or run one worker only."
        return Check("machine", "memory", "warning", said, fix, facts)
    return Check("machine", "memory", "ok", said, facts=facts)


def open_files() -> int | None:
    """Files this process may hold open; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def check_open_files(n: int | None) -> Check:
    """A folder of thousands of slices is read by several workers."""
    said = "no limit" if n is None else f"{n} may be open at once"
    if n is None or n >= GOOD_FILES:
        return Check("machine", "open files", "ok", f"{said[:1].upper()}{said[1:]}.", facts={"limit": n})
    status, facts = ("problem" if n < LEAST_FILES else "warning"), {"limit": n}
    fix = f"Raise the limit: ulimit -n {4 * GOOD_FILES}, or LimitNOFILE in the service's unit file."
    return Check("machine", "open files", "problem" if status == "problem" else "warning", f"{said}.", fix, facts)


def check_shared(total: int | None) -> Check:
    """Reader processes hand volumes over through shared memory; containers give 64 MiB unless told otherwise."""
    if total is None:
        return Check("machine", "shared memory", "ok", "This system has no /dev/shm.")
    facts, said = {"total_bytes": total}, f"Shared memory holds {size(total)}."
    if total < GOOD_SHM:
        fix = "Start the container with --shm-size=2g (or ipc: host)."
        return Check("machine", "shared memory", "warning", said, fix, facts)
    return Check("machine", "shared memory", "ok", said, facts=facts)


def check_clock(now: float, newest: float, zone: str, offset_s: int) -> Check:
    """The clock is not behind medvl's own files; results and DICOM objects carry its time."""
    facts = {"time_zone": zone, "offset_minutes": offset_s // 60}
    stamp = time.strftime("%Y-%m-%d %H:%M", time.localtime(now))
    if now < newest - 86400:
        fix = "Set the clock (timedatectl set-ntp true): results and DICOM objects carry its time."
        return Check("machine", "clock", "problem", f"{stamp} {zone}, before medvl itself was installed.", fix, facts)
    return Check("machine", "clock", "ok", f"{stamp} {zone} (UTC{offset_s / 3600:+g} h).", facts=facts)


def _newest_own_file() -> float:
    return max(path.stat().st_mtime for path in Path(__file__).parent.glob("*.py"))


def check_font() -> Check:
    """The font of pages and figures, which matplotlib ships."""
    from matplotlib.font_manager import findfont

    try:
        findfont("DejaVu Sans", fallback_to_default=False)
    except ValueError:
        fix = "Run: pip install --force-reinstall matplotlib (or apt-get install fonts-dejavu-core)."
        return Check("machine", "fonts", "problem", "DejaVu Sans is not there; pages and figures need it.", fix)
    return Check("machine", "fonts", "ok", "DejaVu Sans is there (Latin, Greek, Cyrillic).")
