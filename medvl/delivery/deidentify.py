"""DICOM headers without identifiers: PS3.15's basic profile at every depth, with keyed ids and UIDs.

`Deidentifier.header` makes a new data set from what is known to be harmless; it does not delete from the old one. The output is
plain ASCII, so no identifier survives in a charset that a search would not think of.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pydicom import DataElement, Dataset
from pydicom._uid_dict import UID_dictionary

from medvl import __version__
from medvl.delivery import deidentify_rules as rules
from medvl.delivery.deidentify_pixels import without_comments
from medvl.errors import ConfigError

if TYPE_CHECKING:
    from medvl.delivery.deidentify_files import Burned, Counts, Told

MIN_KEY_BYTES = 16
MAX_SHIFT_DAYS = 3650
OLDEST_YEARS = 89  # ages above are told as 90
DUMMY_DATE, DUMMY_TIME = "19000101", "000000"
MIN_NAME = 4  # letters of a name that is looked for inside other texts
_WORDS = ("CS", "LO", "SH", "UC", "UT")
_NAMED = (
    "PatientName",
    "PatientID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "OtherPatientNames",
    "OtherPatientIDs",
    "StudyID",
)
_READ_ERRORS = (AttributeError, LookupError, NotImplementedError, OSError, RecursionError, TypeError, ValueError)
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})(.*)")
_PRIVATE_SCHEME = re.compile(r"99.*|L")
_METHODS = MappingProxyType(
    {
        "113100": "Basic Application Confidentiality Profile",
        "113105": "Clean Descriptors Option",
        "113106": "Retain Longitudinal Temporal Information Full Dates Option",
        "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
        "113108": "Retain Patient Characteristics Option",
        "113109": "Retain Device Identity Option",
        "113110": "Retain UIDs Option",
    }
)


@dataclass(frozen=True)
class Deidentify:
    """What the basic profile may leave.

    Args:
        retain_uids: keep UIDs; by default each becomes a keyed hash, the same wherever it stands and in every run of one key.
        dates: ``"remove"`` them, ``"shift"`` by a number of whole days that is the patient's own under the key (intervals and
            times of day stay), or ``"keep"`` them. Dates of birth always go.
        retain_device: keep serial number, station name and the like.
        retain_patient_characteristics: keep age (90 for all above 89 years), sex, size and weight.
        clean_descriptors: keep of the study's and series' descriptions the words common in CT protocols; by default all go.
    """

    retain_uids: bool = False
    dates: Literal["remove", "shift", "keep"] = "remove"
    retain_device: bool = False
    retain_patient_characteristics: bool = False
    clean_descriptors: bool = False

    def __post_init__(self) -> None:
        """Refuse an unknown way with dates."""
        if self.dates not in ("remove", "shift", "keep"):
            raise ConfigError(f"dates may be remove, shift or keep, got {self.dates!r}")

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of PS3.16 CID 7050 for what is done."""
        chosen = {
            "113105": self.clean_descriptors,
            "113106": self.dates == "keep",
            "113107": self.dates == "shift",
            "113108": self.retain_patient_characteristics,
            "113109": self.retain_device,
            "113110": self.retain_uids,
        }
        return ("113100", *(code for code, on in chosen.items() if on))


class Deidentifier:
    """Headers without identifiers under one key.

    Args:
        key: at least 16 random bytes; whoever has it can tell whether a known id belongs to an output.
        options: what may stay.

    Raises:
        ConfigError: a short key.
    """

    def __init__(self, key: bytes, options: Deidentify | None = None) -> None:
        if len(key) < MIN_KEY_BYTES:
            raise ConfigError(f"a key of {len(key)} bytes can be guessed; give at least {MIN_KEY_BYTES} random bytes")
        self.options = options or Deidentify()
        self._key = key

    @property
    def fingerprint(self) -> str:
        """16 hex digits that tell this key from others and nothing else of it."""
        return self._hash("fingerprint", "").hex()[:16]

    def uid(self, uid: str) -> str:
        """The UID (``2.25.`` and a UUID) that stands for another."""
        return f"2.25.{uuid.UUID(bytes=self._hash('uid', uid.strip(' ' + chr(0)))[:16], version=5).int}"

    def patient(self, ds: Dataset) -> str:
        """16 hex digits for the patient of a data set; for its study where it names none, so that no two patients become one."""
        named = _first(ds, "PatientID")
        known = f"{_first(ds, 'IssuerOfPatientID')}\0{named}" if named else f"\0\0{_first(ds, 'StudyInstanceUID')}"
        return self._hash("patient", known).hex()[:16]

    def shift_days(self, ds: Dataset) -> int:
        """Whole days by which the dates of the data set's patient move back, 1 to 3650."""
        return 1 + int.from_bytes(self._hash("shift", self.patient(ds))[:8], "big") % MAX_SHIFT_DAYS

    def header(self, ds: Dataset) -> Dataset:
        """A new data set without identifiers; pixels are kept (and comments in compressed streams blanked), `ds` is not changed.

        Raises:
            ValueError: sequences nested deeper than Python can follow.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about charsets and values that are left out
            try:
                out = _Walk(self, ds).clean(ds)
            except RecursionError as error:
                raise ValueError("sequences are nested too deep") from error
            out.PatientID = out.PatientName = self.patient(ds)
        out.PatientIdentityRemoved = "YES"
        out.DeidentificationMethod = f"medvl {__version__}; DICOM PS3.15 E.1 {rules.EDITION}"[:64]
        out.DeidentificationMethodCodeSequence = [_code(code) for code in self.options.codes]
        changed: Mapping[str, str] = {"remove": "REMOVED", "shift": "MODIFIED", "keep": "UNMODIFIED"}
        out.LongitudinalTemporalInformationModified = changed[self.options.dates]
        if "PixelData" in out:
            out["PixelData"].value = without_comments(out)
            out["PixelData"].is_undefined_length = ds["PixelData"].is_undefined_length
        return out

    def files(self, source: Path, out: Path, *, burned: Burned = "refuse", told: Told | None = None) -> Counts:
        """Every image of a folder, file or zip archive without identifiers under `out`; see `deidentify_files.run`."""
        from medvl.delivery.deidentify_files import run

        return run(self, source, out, burned=burned, told=told)

    def _hash(self, domain: str, text: str) -> bytes:
        return hmac.new(self._key, f"medvl deidentify {domain}\0{text}".encode(errors="surrogatepass"), hashlib.sha256).digest()


class _Walk:
    """One pass over a data set and its sequences."""

    def __init__(self, owner: Deidentifier, ds: Dataset) -> None:
        self.owner, self.options = owner, owner.options
        self.days, self.names = owner.shift_days(ds), _names(ds)
        self.enhanced = "PerFrameFunctionalGroupsSequence" in ds

    def clean(self, ds: Dataset) -> Dataset:
        out = Dataset()
        for tag in sorted(int(tag) for tag in ds.keys()):  # noqa: SIM118 - a data set iterates over elements
            element = self._element(ds, tag)
            if element is not None:
                out.add(element)
        return out

    def _element(self, ds: Dataset, tag: int) -> DataElement | None:  # noqa: PLR0911 - one return for each action
        action, vr = rules.action(tag), rules.standard_vr(tag)
        if tag in self._retained():
            action = "uid" if vr == "UI" else "check"
        if tag in rules.DESCRIPTORS and self.options.clean_descriptors:
            return DataElement(tag, vr, rules.cleaned(_ascii(self._value(ds, tag)), self.names))
        if action == "remove":
            return None
        if action == "empty":
            return DataElement(tag, vr, [] if vr == "SQ" else None)
        if action == "dummy":
            return _dummy(tag, vr)
        if action == "date":
            return self._date(ds, tag, vr)
        value = self._value(ds, tag)
        if action == "descend":
            items = [self.clean(item) for item in value or () if isinstance(item, Dataset)]
            kept = [item for item in items if not _PRIVATE_SCHEME.fullmatch(str(item.get("CodingSchemeDesignator", "")))]
            return DataElement(tag, "SQ", kept) if kept or not items else None
        if action == "uid":
            return self._uid(tag, value)
        found = _checked(ds, tag, vr, value)
        return DataElement(tag, vr, None) if found and vr in _WORDS and self._names_someone(found.value) else found

    def _names_someone(self, value: Any) -> bool:
        """True when a name or id of this very patient stands in a text that is otherwise harmless."""
        text = str(value or "").casefold()
        return any(name in text for name in self.names if len(name) >= MIN_NAME)

    def _retained(self) -> frozenset[int]:
        """Tags that an option keeps though the tables do not."""
        kept: frozenset[int] = rules.CHARACTERISTICS if self.options.retain_patient_characteristics else frozenset()
        return kept | rules.DEVICE if self.options.retain_device else kept

    @staticmethod
    def _value(ds: Dataset, tag: int) -> Any:
        """The decoded value; None when it cannot be read."""
        try:
            return ds[tag].value
        except _READ_ERRORS:
            return None

    def _uid(self, tag: int, value: Any) -> DataElement | None:
        uids = [str(uid) for uid in (value if isinstance(value, list) or hasattr(value, "append") else [value]) if uid]
        keep = self.options.retain_uids or (tag in rules.DEVICE and self.options.retain_device)
        new = [uid if uid in UID_dictionary or (keep and rules.honest("UI", uid)) else self.owner.uid(uid) for uid in uids]
        return DataElement(tag, "UI", new if len(new) > 1 else new[0]) if new else None

    def _date(self, ds: Dataset, tag: int, vr: str) -> DataElement | None:
        gone = rules.kept_when_dates_go(tag)
        if self.options.dates == "remove" or rules.describes_a_person(tag):
            if gone == "empty" and not (self.enhanced and tag in (0x00080023, 0x00080033)):
                return DataElement(tag, vr, None)
            return _dummy(tag, vr) if gone != "remove" or (self.enhanced and tag == 0x0008002A) else None
        value = self._value(ds, tag)
        texts = [str(one) for one in (value if hasattr(value, "append") else [value]) if one]
        moved = [self._moved(text, vr) for text in texts]
        if not moved or None in moved:
            return None if gone == "remove" else (DataElement(tag, vr, None) if gone == "empty" else _dummy(tag, vr))
        return DataElement(tag, vr, moved if len(moved) > 1 else moved[0])

    def _moved(self, text: str, vr: str) -> str | None:
        """A date or date and time moved back by the patient's days; None where it is none."""
        if vr == "TM":
            return text.strip() if re.fullmatch(r"[0-9:.]{2,16}", text.strip()) else None
        found = _DATE.fullmatch(text.strip())
        rest = found[4] if found else ""
        if found is None or not re.fullmatch(r"[0-9.+-]{0,18}" if vr == "DT" else "", rest):
            return None
        try:
            day = datetime.date(int(found[1]), int(found[2]), int(found[3]))
            day -= datetime.timedelta(days=self.days if self.options.dates == "shift" else 0)
        except (ValueError, OverflowError):
            return None
        return f"{day:%Y%m%d}".rjust(8, "0") + rest


def _checked(ds: Dataset, tag: int, vr: str, value: Any) -> DataElement | None:
    """An element of a kind that names nobody, kept where each value looks as its kind says."""
    actual = ds[tag].VR if " or " in vr and value is not None else vr
    if tag in rules.BINARY or isinstance(value, bytes):
        return DataElement(tag, actual, value) if tag in rules.BINARY and isinstance(value, bytes) else None
    if value is None or value == "":
        return DataElement(tag, actual, None)
    values = list(value) if hasattr(value, "append") else [value]
    if vr in _WORDS and vr != "CS":
        values = [_ascii(one) for one in values]
    elif vr == "CS":
        values = [str(one).upper().strip() for one in values]
    elif vr == "AS":
        values = [_capped(str(one)) for one in values]
    if not all(rules.honest(vr, str(getattr(one, "original_string", one))) for one in values):
        return DataElement(tag, actual, None)
    return DataElement(tag, actual, values if len(values) > 1 else values[0])


def _capped(age: str) -> str:
    """An age such as 034Y, with 090Y for all above 89 years."""
    return "090Y" if re.fullmatch(r"\d{3}Y", age) and int(age[:3]) > OLDEST_YEARS else age


def _ascii(value: Any) -> str:
    """Printable ASCII of a text, no longer than a long string may be."""
    return "".join(mark for mark in str(value or "") if " " <= mark <= "~" and mark != "\\")[:64].strip()


def _dummy(tag: int, vr: str) -> DataElement | None:
    """A value that says nothing, for what must have one."""
    values = {"DA": DUMMY_DATE, "TM": DUMMY_TIME, "DT": DUMMY_DATE + DUMMY_TIME, "AS": "000Y", "CS": "REMOVED"}
    if vr in ("SQ", "OB", "UN", "UR"):
        return None
    return DataElement(tag, vr, values.get(vr, "REMOVED"))


def _code(value: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", _METHODS[value]
    return item


def _names(ds: Dataset) -> frozenset[str]:
    """The words of the patient's names and ids, in lower case."""
    whole = " ".join(_first(ds, keyword) for keyword in _NAMED)
    return frozenset(word for word in re.split(r"[^\w]+", whole.casefold()) if len(word) > 1)


def _first(ds: Dataset, keyword: str) -> str:
    """An attribute as text whatever its charset; empty when absent."""
    try:
        return str(ds.get(keyword) or "").strip()
    except _READ_ERRORS:
        return ""
