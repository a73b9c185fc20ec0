"""What happens to each attribute: the basic profile's tables (PS3.15 Annex E) as `dicom-anonymizer` keeps them, and more.

The library applies its tables to the outermost level only, draws new UIDs at random in every run, leaves what the tables do not
name, and cannot shift dates. So its tables are used, and applied by our own walk; what they do not name stays only if it is of a
kind that cannot name anybody, or on the short list `TECHNICAL`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom.datadict import dictionary_VR, tag_for_keyword

EDITION = "2026c"
Action = Literal["remove", "empty", "dummy", "uid", "date", "check", "descend"]


def _tags(words: str) -> frozenset[int]:
    found = {word: tag_for_keyword(word) for word in words.split()}
    return frozenset(tag for tag in found.values() if tag is not None)


TECHNICAL = _tags(
    "Manufacturer ManufacturerModelName SoftwareVersions ConvolutionKernel FilterType RescaleType ModalityLUTType "
    "CodeValue LongCodeValue CodeMeaning CodingSchemeDesignator CodingSchemeVersion MappingResource "
    "ReconstructionAlgorithm ContrastBolusRoute ContrastBolusIngredient WindowCenterWidthExplanation LUTExplanation "
    "AlgorithmVersion AlgorithmName PositionReferenceIndicator StackID"
)
BINARY = _tags(
    "PixelData FloatPixelData DoubleFloatPixelData ExtendedOffsetTable ExtendedOffsetTableLengths LUTData "
    "RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData"
)
CHARACTERISTICS = _tags("PatientSex PatientAge PatientSize PatientWeight")
DEVICE = _tags(
    "DeviceSerialNumber StationName DeviceUID GantryID DetectorID CassetteID PlateID GeneratorID TreatmentMachineName "
    "DeviceDescription LongDeviceDescription ManufacturerDeviceIdentifier XRaySourceID SourceSerialNumber"
)
DESCRIPTORS = _tags("StudyDescription SeriesDescription ProtocolName ContrastBolusAgent RequestedProcedureDescription")
WRITTEN_ANEW = _tags(
    "SpecificCharacterSet PatientID PatientName PatientIdentityRemoved DeidentificationMethod DataSetTrailingPadding "
    "LongitudinalTemporalInformationModified DeidentificationMethodCodeSequence"
)
_DATES = ("DA", "DT", "TM")
_PLAIN = ("AS", "AT", "CS", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV")
_VOCABULARY = frozenset(
    """a ac art arterial arterielle arteriell abd abdo abdomen angio aorta ax axial body bone brain breath hold cardiac cect chest
    contrast
    cor coronal coronary ct cta delay delayed dual energy excretory ex exc extremity fbp foot full gating head heart
    hepatic hip hr hrct iterative kidney kidneys kernel knee late lateral liver low lung lungs lunge mediastinum medium mip mm mpr
    nativ native nc neck nephro nephrogenic nephrographic no non nonenhanced only oral pancreas parenchyma pelvis phase plain
    portal post pre pulmonary pv recon reconstruction renal sag sagittal skull soft spine standard std thick thin
    thorax tissue tract unenhanced upper urinary urogram urography venous venoes ven vein volume w wo with without wholebody
    whole scan spiral helical sequence routine dose""".split()  # noqa: SIM905 - a list of words reads better so
)
_SMALL_NUMBER = re.compile(r"\d{1,2}([.,]\d{1,3})?(mm|s|kv)?")
_SPLIT = re.compile(r"[^0-9A-Za-z.,]+")


@cache
def _tables() -> dict[int, str]:
    """Tag to the name of its table, such as ``X_TAGS``."""
    tables = dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    return {tag[0] << 16 | tag[1]: name for name, tags in tables.items() if name != "ALL_TAGS" for tag in tags if len(tag) == 2}


@cache
def standard_vr(tag: int) -> str:
    """The value representation that the standard gives a public tag, whatever a file claims; empty for an unknown one."""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


@cache
def action(tag: int) -> Action:  # noqa: PLR0911 - one return for each rule, first match
    """What the basic profile, made strict, does to a tag at any depth."""
    vr, group = standard_vr(tag), tag >> 16
    if (
        group % 2
        or group < 8
        or not vr
        or 0x5000 <= group <= 0x50FF
        or 0x6000 <= group <= 0x60FF
        or tag in WRITTEN_ANEW
        or not tag & 0xFFFF
    ):
        return "remove"
    table = _tables().get(tag, "")
    if table == "U_TAGS" or (vr == "UI" and table in ("", "D_TAGS")):
        return "uid"
    if vr in _DATES:
        return "date"
    if vr == "SQ":
        return {"": "descend", "X_Z_U_STAR_TAGS": "descend", "Z_TAGS": "empty"}.get(table, "remove")  # type: ignore[return-value]
    if table:
        return {"Z_TAGS": "empty", "Z_D_TAGS": "empty", "X_Z_TAGS": "remove", "D_TAGS": "dummy"}.get(table, "remove")  # type: ignore[return-value]
    if vr in _PLAIN or vr in ("US or SS", "US or OW", "US or SS or OW"):
        return "check"
    return "check" if tag in TECHNICAL or tag in BINARY else "remove"


def kept_when_dates_go(tag: int) -> Action:
    """What becomes of a date when dates are removed: required ones are emptied or made a dummy, others go."""
    table = _tables().get(tag, "")
    return {"Z_TAGS": "empty", "Z_D_TAGS": "empty", "D_TAGS": "dummy"}.get(table, "remove")  # type: ignore[return-value]


def describes_a_person(tag: int) -> bool:
    """True for dates of the patient (birth, menstruation...), which no option keeps."""
    return tag >> 16 in (0x0010, 0x0012, 0x0038)


def cleaned(text: str, names: frozenset[str] = frozenset()) -> str:
    """The words of a description that are common in CT protocols and no part of `names`, and small numbers."""
    words = [word.strip(".,") for word in _SPLIT.split(text)]
    return " ".join(word for word in words if word.lower() not in names and _common(word.lower()))


def _common(word: str) -> bool:
    return word in _VOCABULARY or _SMALL_NUMBER.fullmatch(word) is not None


_PATTERNS = {
    "CS": re.compile(r"[A-Z0-9 _]{0,16}"),
    "AS": re.compile(r"\d{3}[DWMY]"),
    "DS": re.compile(r" *[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)? *"),
    "IS": re.compile(r" *[-+]?\d{1,12} *"),
    "UI": re.compile(r"[0-9.]{1,64}"),
}


def honest(vr: str, text: str) -> bool:
    """True when a value looks as its representation says, so that a name does not hide in a number or a code."""
    pattern = _PATTERNS.get(vr)
    return pattern is None or pattern.fullmatch(text) is not None
