"""What the tags of a series say against it being a CT volume, and what is worth a remark."""

from __future__ import annotations

import re

from medvl.dicom import header as dcm
from medvl.dicom.frames import Frame
from medvl.dicom.pixels import JPEG_DCT, LOSSY, SYNTAX_NAMES
from medvl.dicom.source import shown
from medvl.records import Reason

_CAPTURE_CLASS = "1.2.840.10008.5.1.4.1.1.7"
_CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
_OTHER_SCANNERS = {
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PET",
    "1.2.840.10008.5.1.4.1.1.130": "PET",
    "1.2.840.10008.5.1.4.1.1.20": "nuclear medicine",
}
_SCOUT = re.compile(r"LOCALI[SZ]ER|SCOUT|TOPOGRAM|SURVIEW|SCANOGRAM")
_MAPS = frozenset(
    (
        "PERFUSION",
        "RCBF",
        "RCBV",
        "RMTT",
        "MTT",
        "TTP",
        "CBF",
        "CBV",
        "PBV",
        "PERMEABILITY",
        "Z_EFF",
        "EFF_ATOMIC_NUM",
        "ELECTRON_DENSITY",
        "IODINE",
        "IODINE_MAP",
        "MATERIAL_FRACTION",
        "MAT_SPECIFIC",
        "MAT_FRACTION",
        "MAT_VALUE_BASED",
        "DENSITY_MAP",
        "UNCERTAINTY",
    )
)
_PROJECTIONS = frozenset(("MIP", "MINIP", "MAX_IP", "MIN_IP", "AVERAGE", "PROJECTION", "PROJECTION_IMAGE", "VOLUME_RENDERED"))
_DERIVED_OBJECTS = ("SEG", "RTDOSE", "RTSTRUCT", "PR", "SR", "KO", "REG")
_OTHER_UNITS = re.compile(r"^(?!HU$|US$|$).+")


def refusals(frames: list[Frame]) -> list[Reason]:
    """Why the tags say that these frames are no CT volume, the most telling first; empty when they may be."""
    first = frames[0]
    kind = _kind(first)
    if kind is not None:
        return [kind]
    return [reason for reason in (_storage(frames), _units(first), _place(frames)) if reason is not None]


def _kind(frame: Frame) -> Reason | None:  # noqa: PLR0911 - a list of kinds, first match
    """Another kind of object than a CT slice."""
    modality, sop_class = dcm.text(frame.tags, 0x00080060), dcm.text(frame.tags, 0x00080016)
    image_type = " ".join(dcm.texts(frame.tags, 0x00080008)).upper()
    if modality in _DERIVED_OBJECTS:
        return Reason("not_an_image", f"a {modality} object made from a scan, not a scan")
    if modality != "CT":
        return Reason("not_ct", f"modality {shown(modality[:16]) or 'missing'}; only CT has Hounsfield units")
    if sop_class.startswith(_CAPTURE_CLASS):
        return Reason("secondary_capture", "a secondary capture (screen shot, exam summary), not a scan")
    if sop_class in _OTHER_SCANNERS:
        return Reason("wrong_modality", f"tagged CT but stored as a {_OTHER_SCANNERS[sop_class]} image")
    if frame.encoding.samples != 1 or frame.encoding.photometric not in ("MONOCHROME1", "MONOCHROME2", ""):
        return Reason("secondary_capture", f"a colour picture ({shown(frame.encoding.photometric[:16])}), not measured values")
    if _SCOUT.search(image_type):
        return Reason("localizer", "a localiser (scout), one projection and not slices")
    if sop_class and sop_class not in _CT_CLASSES:
        return Reason("not_an_image", f"stored as SOP class {sop_class}, which is not a CT image")
    return None


def _storage(frames: list[Frame]) -> Reason | None:
    """Pixels that cannot hold HU."""
    encoding = frames[0].encoding
    bad = [frame for frame in frames if frame.encoding.transfer_syntax in JPEG_DCT]
    if bad:
        name = SYNTAX_NAMES.get(bad[0].encoding.transfer_syntax, "JPEG")
        return Reason("jpeg_not_hu", f"{name} with 8 or 12 bits does not keep Hounsfield units; export the original series")
    if encoding.bits_allocated == 8 or encoding.bits_stored <= 8:
        return Reason(
            "eight_bit", "8-bit pixels hold 256 grey levels of a window, not Hounsfield units; export the original series"
        )
    return None


def _units(frame: Frame) -> Reason | None:
    words = [word.upper() for word in (*dcm.texts(frame.tags, 0x00080008), *dcm.texts(frame.tags, 0x00089007))]
    maps = sorted(_MAPS.intersection(words))
    if maps:
        return Reason("not_hounsfield", f"a derived map ({', '.join(maps)}), not Hounsfield units")
    unit = dcm.text(frame.tags, 0x00281054).upper()
    if _OTHER_UNITS.match(unit):
        return Reason("not_hounsfield", f"the rescale gives {unit}, not HU")
    return None


def _place(frames: list[Frame]) -> Reason | None:
    lacking = {
        "image position": sum(frame.position is None for frame in frames),
        "image orientation": sum(frame.orientation is None for frame in frames),
        "pixel spacing": sum(frame.spacing is None for frame in frames),
    }
    missing = [f"{name} ({count} of {len(frames)})" for name, count in lacking.items() if count]
    if missing:
        return Reason("missing_geometry", f"no usable {', '.join(missing)}; a place is never invented, export the series again")
    return None


def _may_be_lossy(frame: Frame) -> bool:
    return dcm.text(frame.tags, 0x00282110) != "00"


def image_warnings(frames: list[Frame]) -> list[Reason]:
    """What a reader should know of frames that may still be a good volume."""
    found = []
    first = frames[0]
    flags = {dcm.text(frame.tags, 0x00282110) for frame in frames}
    lossy = sorted({f.encoding.transfer_syntax for f in frames if f.encoding.transfer_syntax in LOSSY and _may_be_lossy(f)})
    if lossy or "01" in flags:
        name = ", ".join(SYNTAX_NAMES.get(uid, uid) for uid in lossy) or "an earlier lossy compression"
        found.append(Reason("lossy_compression", f"{name}: values may differ from what was measured"))
    if dcm.text(first.tags, 0x00080060) != "CT":
        return found
    if first.encoding.photometric == "MONOCHROME1":
        found.append(Reason("monochrome1", "the display is inverted (MONOCHROME1); Hounsfield units are not, and were kept"))
    if any(dcm.number(frame.tags, 0x00281053) is None or dcm.number(frame.tags, 0x00281052) is None for frame in frames):
        found.append(Reason("rescale_absent", "no rescale in the header; stored values were taken as HU and checked for air"))
    if len({(frame.slope, frame.intercept) for frame in frames}) > 1:
        found.append(Reason("rescale_per_slice", "slope or intercept change between slices; each slice was rescaled by its own"))
    words = {word.upper() for word in dcm.texts(first.tags, 0x00080008)}
    if words & _PROJECTIONS:
        found.append(
            Reason(
                "projection", f"slabs ({', '.join(sorted(words & _PROJECTIONS))}) rather than thin slices; findings may be hidden"
            )
        )
    return found
