"""Links between what one site made of the same patient, under one key that all its commands are given and that stays there.

A link reads ``FINGERPRINT:HASH``. The fingerprint tells keys apart and nothing of them; the hash is `patient_id` under the key.
Several, of one patient with several numbers, are separated by blanks. ``FINGERPRINT:`` alone: a key was there, but no number.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from medvl.data.identity import keyed_id, patient_id


class Likeness(StrEnum):
    """What two persons' links tell of each other."""

    same = "same"
    other = "other"
    no_link = "no link"
    other_key = "other key"
    no_number = "no number"


def fingerprint(key: bytes) -> str:
    """8 hex digits by which keys are told apart."""
    return keyed_id(key, "fingerprint of the patient key")[:8]


def person_of(key: bytes, *numbers: str) -> str:
    """The links of a patient called by these numbers, alike from every source; empty without a key."""
    if not key:
        return ""
    mark = fingerprint(key)
    found = {f"{mark}:{told}" for number in numbers if (told := patient_id(key, number)) is not None}
    return " ".join(sorted(found)) or f"{mark}:"


def joined(persons: Iterable[str]) -> str:
    """All links of what is one patient."""
    links = {link for person in persons for link in person.split()}
    told = {link.partition(":")[0] for link in links if not link.endswith(":")}
    return " ".join(sorted(link for link in links if not link.endswith(":") or link[:-1] not in told))


def compared(mine: str, theirs: str) -> Likeness:
    """Whether two are one person, or why that cannot be told; ``no_link`` and ``no_number`` may be of either."""
    ours, others = set(mine.split()), set(theirs.split())
    if not ours or not others:
        return Likeness.no_link
    if {link for link in ours & others if not link.endswith(":")}:
        return Likeness.same
    if not {link.partition(":")[0] for link in ours} & {link.partition(":")[0] for link in others}:
        return Likeness.other_key
    return Likeness.no_number if _unnumbered(ours) or _unnumbered(others) else Likeness.other


def numbered(person: str) -> bool:
    """Whether a person's links tell any number."""
    return not _unnumbered(set(person.split()))


def _unnumbered(links: set[str]) -> bool:
    return all(link.endswith(":") for link in links)
