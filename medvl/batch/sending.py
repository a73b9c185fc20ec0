"""DICOM objects to the PACS: each study's to each target, until the PACS has them or refuses them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvl.batch.dues import Dues
from medvl.batch.tables import Sending
from medvl.errors import InputError
from medvl.network import store_scu
from medvl.network.access import Access
from medvl.network.address import WebAddress, parse
from medvl.network.dicomweb import DicomWeb
from medvl.network.errors import Stored, retryable

FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 600.0


class Sender:
    """Sends what is due.

    Args:
        dues: of the ledger.
        studies: the folder with one folder a study, whose `dicom` folder holds the objects.
        access: login.
        allow_plain: DICOMweb over plain http to other machines.
    """

    def __init__(self, dues: Dues, studies: Path, access: Access, *, allow_plain: bool = False) -> None:
        self._dues, self._studies, self._access, self._plain = dues, studies, access, allow_plain
        self._tries: dict[str, int] = {}

    def step(self) -> bool:
        """Send one study's objects to one target; False when nothing is due."""
        due = self._dues.to_send()
        if due is None:
            return False
        target, folder = due.target, self._studies / due.case_id / "dicom"
        files = [folder / str(made["path"]) for made in due.lacks]
        if not all(_same(file, made) for file, made in zip(files, due.lacks, strict=True)):
            self._dues.unmake(due)
            return True
        try:
            if not files:
                raise InputError("no_dicom_source", "nothing could be made for a PACS; see the study's reason")
            self._judge(self._send(target, files))
        except InputError as error:
            if retryable(error):
                self._tries[target] = self._tries.get(target, 0) + 1
                wait = min(FIRST_WAIT_S * 2 ** (self._tries[target] - 1), LONGEST_WAIT_S)
                self._dues.sent(due, Sending.waiting, error.code, error.message, wait)
            else:
                self._dues.sent(due, Sending.refused, error.code, error.message)
        else:
            self._tries.pop(target, None)
            self._dues.sent(due, Sending.sent)
        return True

    def _send(self, target: str, files: Sequence[Path]) -> list[Stored]:
        address = parse(target, allow_plain=self._plain)
        if not isinstance(address, WebAddress):
            return store_scu.send(address, files, self._access)
        with DicomWeb(address, self._access) as web:
            return web.store(files)

    def _judge(self, answers: Sequence[Stored]) -> None:
        """Raise when the PACS has not taken every object."""
        missing = [a for a in answers if not a.stored]
        if not missing:
            return
        codes = ", ".join(sorted({f"0x{a.failure:04X}" for a in missing}))
        message = f"the PACS did not take {len(missing)} of {len(answers)} objects (status {codes})"
        raise InputError("pacs_unreachable" if all(a.retryable for a in missing) else "pacs_refused", message)


def _same(file: Path, made: Mapping[str, Any]) -> bool:
    """Whether a file is the one that was made."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() == str(made["sha256"])
    except (FileNotFoundError, NotADirectoryError):
        return False
