"""Identifiers that come out the same each time, so that what is sent twice is stored once."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

_CHANGING = ("timings_s", "made_at", "case_id")  # of one run, or of one results folder
_KEYED = ("key", "patient")  # of a series: hashes under the key of one results folder


def uid_of(*parts: str) -> str:
    """A DICOM UID below 2.25 (PS3.5 B.2) that stands for the parts: a name-based UUID of version 8 (RFC 9562) over SHA-256."""
    digest = bytearray(hashlib.sha256("\0".join(("medvl", *parts)).encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return f"2.25.{uuid.UUID(bytes=bytes(digest)).int}"


def content_hash(values: Mapping[str, Any]) -> str:
    """SHA-256 of what a findings record says, without what differs between runs and results folders that say the same."""
    kept = {key: value for key, value in values.items() if key not in _CHANGING}
    if isinstance(kept.get("series"), dict):
        kept["series"] = {key: value for key, value in kept["series"].items() if key not in _KEYED}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
