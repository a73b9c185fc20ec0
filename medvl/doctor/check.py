"""What a check says: a status, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Args:
        area: what it belongs to, such as ``packages``.
        name: what was looked at.
        status: ``problem`` means that runs will fail or be wrong; ``warning`` that some will be slow, or need care.
        found: one sentence; holds no path but those that the user gave, and nothing of a patient.
        fix: one sentence on what to do, empty where nothing is to be done.
        facts: the numbers behind it, plain values for JSON.
    """

    area: str
    name: str
    status: Status
    found: str
    fix: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.status != "ok") != bool(self.fix):
            raise ValueError(f"check {self.name}: a fix belongs to a warning or a problem, and to nothing else")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def guarded(area: str, look: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks that `look` gives; one that breaks on an unforeseen machine is a problem of its own, and the others go on."""
    try:
        return list(look())
    except Exception as error:
        fix = "Please report it with the kind of machine; the other checks stand."
        return [Check(area, "the check itself", "problem", f"It broke with {type(error).__name__}.", fix)]


def worst(checks: Iterable[Check]) -> Status:
    """The gravest status among `checks`; ``ok`` for none."""
    found = {check.status for check in checks}
    return "problem" if "problem" in found else "warning" if "warning" in found else "ok"


def size(n_bytes: float) -> str:
    """Bytes as people say them: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} GiB"
