"""Studies whose every identifying attribute, name of file and name of folder holds a string of its own to look for."""

from __future__ import annotations

import gzip
import io
import sqlite3
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import pydicom
from pydicom.dataset import Dataset

PERSON = (
    "PatientName",
    "ReferringPhysicianName",
    "OperatorsName",
    "PhysiciansOfRecord",
    "PerformingPhysicianName",
    "OtherPatientNames",
)
TEXTS = (
    "PatientID", "AccessionNumber", "StudyID", "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName",
    "StationName", "PatientComments", "ImageComments", "StudyDescription", "SeriesDescription", "ProtocolName",
    "RequestingService", "AdmittingDiagnosesDescription", "AdditionalPatientHistory", "PatientAddress", "MilitaryRank",
    "EthnicGroup", "Occupation", "CountryOfResidence", "PatientTelephoneNumbers", "IssuerOfPatientID", "DeviceSerialNumber",
    "RequestedProcedureID", "PerformedProcedureStepDescription", "DerivationDescription", "FrameComments", "MedicalRecordLocator",
)  # fmt: skip
DATES = {"PatientBirthDate": "19370519"}
UIDS = {
    "StudyInstanceUID": "1.2.826.0.1.777001.1",
    "SeriesInstanceUID": "1.2.826.0.1.777001.2",
    "FrameOfReferenceUID": "1.2.826.0.1.777001.3",
}
CHARSETS = {
    "latin": ("ISO_IR 100", "Müllerßon^Jörgÿ"),
    "utf8": ("ISO_IR 192", "Żółkiewska^Łucja"),
    "japanese": (["", "ISO 2022 IR 87"], "Yamashirota^Tarou=山代田^太郎兵衛"),
    "chinese": ("GB18030", "Wangxiaodongg^Zz=王小東國^再再"),
    "korean": (["", "ISO 2022 IR 149"], "Honggildongx^Zz=洪吉洞子^吉洞"),
    "cyrillic": ("ISO_IR 144", "Достоевскийъ^Фёдорыч"),
    "none": ("", "Vandermeulenx^Pieterjanx"),
}


class Planted:
    """The strings that may appear nowhere."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def word(self, what: str) -> str:
        """A unique word for an attribute, the same whenever it is asked for."""
        if what in self.texts:
            return self.texts[what]
        number = len(self.texts)
        self.texts[what] = word = "Qx" + "".join("bcdfghjklm"[int(digit)] for digit in f"{number:04d}") + "zu"
        return word

    def needles(self) -> Iterator[tuple[str, bytes]]:
        """Every planted string in every encoding, cases and orders in which it could turn up."""
        for what, text in self.texts.items():
            parts = [part for part in text.replace("=", "^").split("^") if len(part) > 2]
            wholes = {text, *parts, " ".join(parts), " ".join(reversed(parts)), ", ".join(parts), "_".join(parts)}
            for whole in {*wholes, *(w.lower() for w in wholes), *(w.upper() for w in wholes)}:
                for encoding in ("utf-8", "utf-16-le", "utf-16-be", "latin-1", "iso-2022-jp", "gb18030", "euc-kr", "iso8859-5"):
                    try:
                        needle = whole.encode(encoding)
                    except UnicodeEncodeError:
                        continue
                    if len(needle) >= 5:
                        yield what, needle
            if not text.isascii():
                yield what, text.encode("ascii", "backslashreplace")


def plant(ds: Dataset, planted: Planted, charset: str, case: str) -> None:
    """Fill a data set with what may appear nowhere."""
    codes, name = CHARSETS[charset]
    ds.SpecificCharacterSet = codes
    for keyword in PERSON:
        setattr(ds, keyword, name if keyword == "PatientName" else f"{planted.word(f'{case} {keyword}')}^Jane")
    planted.texts[f"{case} name"] = name
    for keyword in TEXTS:
        setattr(ds, keyword, planted.word(f"{case} {keyword}"))
    for keyword, value in {**DATES, **UIDS}.items():
        setattr(ds, keyword, value + (str(sum(map(ord, case))) if "UID" in keyword else ""))
        planted.texts[f"{case} {keyword}"] = str(ds.get(keyword))
    inner, outer = Dataset(), Dataset()
    inner.PatientName, inner.PatientID = f"{planted.word(f'{case} nested name')}^X", planted.word(f"{case} nested id")
    inner.RequestedProcedureDescription = planted.word(f"{case} nested text")
    outer.RequestAttributesSequence = [inner]
    ds.RequestAttributesSequence, ds.SourceImageSequence, ds.OtherPatientIDsSequence = [inner], [outer], [inner]
    for group in (0x0009, 0x0019, 0x0029):
        block = ds.private_block(group, planted.word(f"{case} creator {group:x}")[:16], create=True)
        block.add_new(1, "LO", planted.word(f"{case} private {group:x}"))
        block.add_new(2, "UN", planted.word(f"{case} private bytes {group:x}").encode("utf-16-le"))
        block.add_new(3, "SQ", [inner])
    ds.preamble = planted.word(f"{case} preamble").encode().ljust(128, b"\0")


def plant_file(path: Path, target: Path, planted: Planted, charset: str, case: str) -> None:
    """A copy of a DICOM file full of identifiers."""
    ds = pydicom.dcmread(path)
    plant(ds, planted, charset, case)
    target.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(target, enforce_file_format=True)


def contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file as they lie, and unpacked where a format packs them."""
    data = path.read_bytes()
    yield data
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    elif data[:4] == b"PAR1":
        yield pd.read_parquet(io.BytesIO(data)).to_csv().encode()
        yield str(pd.read_parquet(io.BytesIO(data)).attrs).encode()
    elif data[:16] == b"SQLite format 3\0":
        with sqlite3.connect(path) as base:
            yield "\n".join(base.iterdump()).encode("utf-8", "surrogatepass")
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (name.encode() + archive.read(name) for name in archive.namelist())


def leaks(planted: Planted, streams: Iterable[tuple[str, bytes]]) -> list[str]:
    """Which planted strings lie in which streams."""
    needles = sorted(set(planted.needles()))
    return sorted({f"{what} in {where}" for where, data in streams for what, needle in needles if needle in data})


def everything(folder: Path, allowed: tuple[str, ...] = ()) -> Iterator[tuple[str, bytes]]:
    """(where, bytes) of every name and content below a folder, except files that are asked to carry paths."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        yield f"the name {name}", name.encode("utf-8", "surrogateescape")
        if path.is_file() and path.name not in allowed:
            yield from ((name, data) for data in contents(path))
