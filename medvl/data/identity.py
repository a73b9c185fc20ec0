"""Case ids that cannot be traced back to a patient without the key of the folder they were made for."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

_NOBODY = re.compile(r"[0\W_]*|anon(ymous|ymi[sz]ed)?|unknown|none|n/?a|no ?id|patient|test", re.IGNORECASE)


def folder_key(path: Path) -> bytes:
    """The random key kept in the file `path` (mode 0600), made at first use; the same for processes that ask at once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with os.fdopen(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(part)
        part.unlink()
    return bytes.fromhex(path.read_text(encoding="utf-8").strip())


def keyed_id(key: bytes, text: str) -> str:
    """12 hex digits: the same for a text under a key, and not to be worked out without it."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:12]


def patient_id(key: bytes, number: str) -> str | None:
    """12 hex digits that stand for a patient number under a key; None for one that many patients may share, such as anonymous."""
    told = number.strip()
    return None if _NOBODY.fullmatch(told) else keyed_id(key, f"patient {told}")
