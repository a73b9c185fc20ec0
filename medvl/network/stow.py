"""What a PACS says about objects that were sent to it by STOW-RS."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from medvl.errors import InputError
from medvl.network.dicomjson import count, items, text
from medvl.network.errors import DUPLICATE, Stored, of_status

REFERENCED, FAILED, SOP_INSTANCE, REASON = "00081199", "00081198", "00081155", "00081197"
UNKNOWN = 0x0110


def uids_of(path: Path) -> tuple[str, str]:
    """Study and SOP instance UID of a file to send.

    Raises:
        InputError: ``not_dicom``.
    """
    try:
        data = dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "SOPInstanceUID"])
        return str(data.StudyInstanceUID), str(data.SOPInstanceUID)
    except (InvalidDicomError, AttributeError, OSError, ValueError):
        raise InputError(
            "not_dicom", "a result to store is no DICOM file with study and instance UID; make the results again"
        ) from None


@dataclass(frozen=True)
class Answer:
    """The answer to a store request.

    Args:
        failed: SOP instance UID to failure reason.
        kept: SOP instance UIDs that were stored.
        whole: everything was stored.
    """

    failed: dict[str, int] = field(repr=False)
    kept: frozenset[str] = field(repr=False)
    whole: bool

    def of(self, uid: str) -> Stored:
        """What it says about one object; one that it does not mention failed unless everything was stored."""
        reason = self.failed.get(uid, 0 if self.whole or uid in self.kept else UNKNOWN)
        return Stored(uid, reason in (0, DUPLICATE), already=reason == DUPLICATE, failure=0 if reason == DUPLICATE else reason)


def answer_of(response: requests.Response) -> Answer:
    """The answer of STOW-RS (PS3.18 10.5.3): 200 all stored, 202 some, 409 none; servers differ in how they say which.

    Raises:
        InputError: any other status, or 409 without a word about the objects.
    """
    if response.status_code not in (200, 202, 409):
        if response.ok:
            return Answer({}, frozenset(), whole=response.status_code == 204)
        raise of_status(response.status_code, "storing results")
    said = _said(response)
    failed = {uid: count(item, REASON) or UNKNOWN for item in items(said, FAILED) if (uid := text(item, SOP_INSTANCE))}
    kept = frozenset(uid for item in items(said, REFERENCED) if (uid := text(item, SOP_INSTANCE)))
    if response.status_code == 409 and not failed and not kept:
        raise of_status(409, "storing results")
    return Answer(failed, kept, whole=response.status_code == 200 and not failed)


def _said(response: requests.Response) -> dict[str, Any]:
    """The body as DICOM JSON, empty when it is anything else."""
    try:
        body = response.json()
    except requests.exceptions.JSONDecodeError:
        return {}
    body = body[0] if isinstance(body, list) and body else body
    return body if isinstance(body, dict) else {}
