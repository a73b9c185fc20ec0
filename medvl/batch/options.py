"""What a run is to do, apart from its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medvl.batch.limits import Limits
from medvl.delivery.deidentify import Deidentify
from medvl.models.localiser import Place
from medvl.network.access import Access


@dataclass(frozen=True)
class Options:
    """How a run goes.

    Args:
        readers: child processes that find, read and prepare studies and make DICOM objects; 0 does it in this process, where a
            study that hangs or eats memory cannot be stopped.
        batch: studies whose regions go through the towers together.
        explain: heat maps and deletion tests.
        kinds: DICOM objects to make of each study, such as ``("sr", "seg")``; none by default.
        targets: addresses to send them to.
        access: login for PACS addresses.
        allow_plain: DICOMweb over plain http to other machines.
        limits: what a study may cost.
        given: places of regions of a single study.
        ledger: file or server address; ``ledger.sqlite`` in the results folder by default.
        retry_quarantined: try studies again that were set aside.
        retry_refused: send again what a PACS refused.
        deidentify: take identity out of the DICOM objects in this way; `deidentify_key` (32 bytes or more) makes ids, UIDs and
            shifts, so that with the same key they fit images that `medvl deidentify` wrote.
        patient_key: of the site; each result then carries the link of its patient (`medvl.data.person`).
        send_wait_s: how long a run stays for a PACS that does not answer, after all else is done.
    """

    readers: int = 1
    batch: int = 4
    explain: bool = True
    kinds: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    access: Access = field(default_factory=Access)
    allow_plain: bool = False
    limits: Limits = field(default_factory=Limits)
    given: Mapping[str, Place] | None = None
    ledger: Path | str | None = None
    retry_quarantined: bool = False
    retry_refused: bool = False
    send_wait_s: float = 120.0
    deidentify: Deidentify | None = None
    deidentify_key: bytes = field(default=b"", repr=False)
    patient_key: bytes = field(default=b"", repr=False)

    def greeting(self, bundle: Path, key: bytes) -> dict[str, Any]:
        """What a child process is told when it starts."""
        given = {name: [[float(c) for c in p.center_lps], float(p.confidence)] for name, p in (self.given or {}).items()}
        access = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self.access).items()}
        return {
            "bundle": str(bundle),
            "key": key.hex(),
            "patient_key": self.patient_key.hex(),
            "given": given,
            "memory_mb": self.limits.memory_mb,
            "access": access,
            "deidentify": None
            if self.deidentify is None
            else {"key": self.deidentify_key.hex(), "options": asdict(self.deidentify)},
        }
