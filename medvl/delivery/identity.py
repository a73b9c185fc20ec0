"""Whose study it is, copied into new objects without a byte changed, and in which character set.

Names and numbers keep the bytes of the source and its character set, so that an archive files the new object with the old ones
whatever the bytes are. Two cases differ. Bytes beyond ASCII without a declared character set are declared as what they can be:
UTF-8 where they are valid UTF-8, else Latin-1. Words of medvl's own that the set cannot say turn the whole object to UTF-8.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from typing import Any

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes, encode_string, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import Tag
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from medvl.errors import InputError

UTF8 = ("ISO_IR 192",)
_DELIMITERS = TEXT_VR_DELIMS | PN_DELIMS
# Always there, empty where the source has none (type 2).
REQUIRED = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
)
_TRIAL = (
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
)
COPIED = (
    *REQUIRED,
    "TimezoneOffsetFromUTC",
    "StudyDescription",
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "LongitudinalTemporalInformationModified",
    *_TRIAL,
)
SEQUENCES = ("OtherPatientIDsSequence", "DeidentificationMethodCodeSequence", "IssuerOfAccessionNumberSequence")
# Of these a value that breaks its rule is left out: it identifies nobody, and would make every new object invalid.
_DECIMAL = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_RULES = {
    "StudyDate": r"\d{8}",
    "PatientBirthDate": r"\d{8}",
    "StudyTime": r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?",
    "PatientSex": "[MFO]",
    "PatientAge": r"\d{3}[DWMY]",
    "PatientSize": _DECIMAL,
    "PatientWeight": _DECIMAL,
    "TimezoneOffsetFromUTC": r"[+-](0\d|1[0-4])[0-5]\d",
    "PatientIdentityRemoved": "YES|NO",
    "LongitudinalTemporalInformationModified": "UNMODIFIED|MODIFIED|REMOVED",
}


@dataclass(frozen=True, eq=False)
class Identity:
    """Patient and study of a series.

    Args:
        raw: the bytes of each element by keyword.
        sequences: the sequences, as elements.
        charset: terms of Specific Character Set, empty for plain ASCII.
    """

    raw: Mapping[str, bytes] = field(repr=False)
    sequences: Mapping[str, DataElement] = field(repr=False)
    charset: tuple[str, ...]

    @property
    def hidden(self) -> tuple[str, ...]:
        """A hash of what is left where identity was taken out, so that what is left in another way gets other UIDs."""
        if self.raw.get("PatientIdentityRemoved", b"").strip(b" \0") != b"YES":
            return ()
        left = (sorted(self.raw.items()), [str(self.sequences[name]) for name in sorted(self.sequences)])
        return (hashlib.sha256(repr(left).encode()).hexdigest(),)

    def text(self, keyword: str) -> str:
        """The element's text, decoded; empty where there is none."""
        return _decoded(self.raw.get(keyword, b""), self.charset)

    def charset_for(self, words: Iterable[str]) -> tuple[str, ...]:
        """The character set of an object that also holds `words`: the source's, else UTF-8."""
        if all(_fits(word, self.charset) for word in words):
            return self.charset
        if any("�" in self.text(keyword) for keyword in self.raw):
            raise InputError(
                "bad_character_set", "the patient's name does not follow its declared character set; have it corrected"
            )
        return UTF8

    def put_on(self, made: Dataset, charset: tuple[str, ...]) -> None:
        """Write patient and study into `made`, an object in `charset`."""
        if charset:
            made.SpecificCharacterSet = list(charset) if len(charset) > 1 else charset[0]
        elif "SpecificCharacterSet" in made:
            del made.SpecificCharacterSet
        for keyword in COPIED:
            raw, needed = self.raw.get(keyword), keyword in REQUIRED
            tag = Tag(tag_for_keyword(keyword) or 0)
            if raw is None and not needed:
                made.pop(tag, None)
                continue
            value = raw or b""
            if charset != self.charset:
                value = encode_string(self.text(keyword), convert_encodings(list(charset)))
            if len(value) % 2:
                value += b"\0" if keyword.endswith("UID") else b" "
            made[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
        for keyword, element in self.sequences.items():
            made[keyword] = element
        made.set_original_encoding(False, True, convert_encodings(list(charset) or None))  # so that bytes are written as they are

    def local(self, moment: datetime) -> datetime:
        """`moment` in the time zone that the source's times are in; as it is when either tells none."""
        offset = self.text("TimezoneOffsetFromUTC").strip()
        if moment.tzinfo is None:
            return moment
        if not offset:
            return moment.replace(tzinfo=None)
        sign = -1 if offset[0] == "-" else 1
        zone = timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5])))
        return moment.astimezone(zone).replace(tzinfo=None)


def identity_of(elements: Mapping[int, Any], declared: Sequence[str]) -> Identity:
    """The identity in a header's raw elements, by tag; `declared` are the terms of its Specific Character Set."""
    raw: dict[str, bytes] = {}
    for keyword in COPIED:
        element = elements.get(tag_for_keyword(keyword) or 0)
        value = element.value if element is not None else None
        if isinstance(value, bytes) and _follows(keyword, value):
            raw[keyword] = value
    if not {"ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialSubjectID"} <= set(raw):
        raw = {keyword: value for keyword, value in raw.items() if keyword not in _TRIAL}
    charset = _charset(declared, raw)
    holder = Dataset()
    for keyword in SEQUENCES:
        tag = tag_for_keyword(keyword) or 0
        if tag in elements:
            holder[tag] = elements[tag]
    sequences = {element.keyword: element for element in holder if len(element.value)}
    return Identity(raw, sequences, charset)


def _follows(keyword: str, value: bytes) -> bool:
    rule = _RULES.get(keyword)
    if rule is None:
        return True
    text = value.decode("latin-1").strip(" \0")
    if keyword in ("StudyDate", "PatientBirthDate") and re.fullmatch(rule, text):
        try:
            date(int(text[:4]), int(text[4:6]), int(text[6:]))
        except ValueError:
            return False
    return text != "" and len(text) <= 16 and re.fullmatch(rule, text) is not None


def _charset(declared: Sequence[str], raw: Mapping[str, bytes]) -> tuple[str, ...]:
    """The declared terms where they are known ones; else what the bytes can be."""
    terms = [term.strip(" \0") for term in declared]
    if any(terms) and all(term in python_encoding for term in terms):
        return tuple(terms)
    whole = b"".join(raw.values())
    if whole.isascii():
        return ()
    try:
        whole.decode("utf-8")
    except UnicodeDecodeError:
        return ("ISO_IR 100",)
    return UTF8


def _decoded(value: bytes, charset: tuple[str, ...]) -> str:
    encodings = convert_encodings(list(charset)) if charset else ["ascii"]
    return decode_bytes(value.strip(b" \0"), encodings, _DELIMITERS)


def _fits(word: str, charset: tuple[str, ...]) -> bool:
    """Whether a character set can say a word, without escape sequences."""
    if word.isascii():
        return True
    try:
        word.encode(python_encoding[charset[0]] if charset else "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
