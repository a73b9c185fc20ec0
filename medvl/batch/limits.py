"""What one study may cost, and how often it is tried."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from medvl.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """Bounds of a run.

    Args:
        study_s: seconds for reading and preparing one study, or for making its objects; then its process is killed.
        find_s: seconds for finding the studies of one input.
        memory_mb: MiB that one child process may take on top of what it needs for itself.
        attempts: how often a study may time out, run out of memory or take its process down before it is quarantined.
        study_bytes: largest study fetched from a PACS.
        min_free_bytes: with less free disk than this under the results, the run stops and says so.
    """

    study_s: float = 600.0
    find_s: float = 3600.0
    memory_mb: int = 8192
    attempts: int = 2
    study_bytes: int = 8 << 30
    min_free_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0 and name != "min_free_bytes":
                raise ConfigError(f"{name} = {value}: give more than 0")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
