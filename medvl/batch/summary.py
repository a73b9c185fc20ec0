"""How a run ended: every study by its state, what was delivered, and what the time went into."""

from __future__ import annotations

import resource
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

STATUSES = ("done", "resumed", "skipped", "failed", "quarantined", "waiting")


@dataclass
class Summary:
    """How a run ended.

    Args:
        cases: `case_id`, `status` and `reason` of each study in the order in which they were found, and the hashes of what was
            read (`pixels`), `bundle` and `contract`.
        deliveries: how many are `sent`, `waiting` or `refused`.
        undelivered: reasons of what is not sent, by code.
        without_objects: studies that are done and of which no DICOM objects could be made although they were asked for.
        receipt: seconds, throughput and memory.
        stopped: why the run ended early, such as ``disk_full``; empty when it came to its end.
    """

    cases: list[dict[str, Any]] = field(default_factory=list)
    deliveries: Counter[str] = field(default_factory=Counter)
    undelivered: Counter[str] = field(default_factory=Counter)
    receipt: dict[str, Any] = field(default_factory=dict)
    stopped: str = ""
    without_objects: int = 0

    @property
    def statuses(self) -> Counter[str]:
        """Studies by status."""
        return Counter(case["status"] for case in self.cases)

    @property
    def reasons(self) -> Counter[str]:
        """Codes of what was not done."""
        return Counter(c["reason"] for c in self.cases if c["status"] not in ("done", "resumed") and c["reason"])

    @property
    def complete(self) -> bool:
        """Whether every study is done, has its objects, and everything owed is sent."""
        whole = all(case["status"] in ("done", "resumed") for case in self.cases) and not self.without_objects
        return whole and not self.stopped and not self.deliveries["waiting"] and not self.deliveries["refused"]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "studies": len(self.cases),
            **{name: self.statuses[name] for name in STATUSES},
            "reasons": dict(self.reasons),
            "deliveries": dict(self.deliveries),
            "undelivered": dict(self.undelivered),
            "without_objects": self.without_objects,
            "stopped": self.stopped,
            "receipt": self.receipt,
            "cases": self.cases,
        }


class Meter:
    """Seconds by stage, over all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = time.monotonic()
        self.stages: dict[str, float] = defaultdict(float)
        self.child_peak_mb = self.worker_peak_mb = 0

    def add(self, timings: Mapping[str, float]) -> None:
        """Seconds that were measured elsewhere."""
        with self._lock:
            for name, seconds in timings.items():
                self.stages[name] += seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add({name: time.perf_counter() - started})

    def receipt(self, n_done: int, n_readers: int, device: str) -> dict[str, Any]:
        """What `n_done` studies took."""
        seconds = time.monotonic() - self._since
        return {
            "seconds": round(seconds, 2),
            "studies_per_hour": round(3600 * n_done / seconds, 1) if seconds > 0 else None,
            "stage_seconds": {name: round(value, 2) for name, value in sorted(self.stages.items())},
            "readers": n_readers,
            "device": device,
            "peak_memory_mb": {
                "run": max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, self.worker_peak_mb),
                "largest_reader": self.child_peak_mb,
            },
        }
