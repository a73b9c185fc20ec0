"""Images that may show a name in their pixels, told by their headers. No pixel is read: what a header hides is not found."""

from __future__ import annotations

from pydicom import Dataset

from medvl.records import Reason

_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.7": "a secondary capture",
    "1.2.840.10008.5.1.4.1.1.3": "an ultrasound image",
    "1.2.840.10008.5.1.4.1.1.6": "an ultrasound image",
    "1.2.840.10008.5.1.4.1.1.12": "an angiogram or fluoroscopy",
    "1.2.840.10008.5.1.4.1.1.20": "a nuclear medicine image",
    "1.2.840.10008.5.1.4.1.1.77.1": "a photograph or video",
    "1.2.840.10008.5.1.4.1.1.104": "an encapsulated document",
}
_TYPE_WORDS = ("SCREEN", "DOSE", "PROT", "REPORT", "CAPTURE", "SUMMARY", "DISPLAY", "PASTED")
_DESCRIPTION_WORDS = ("DOSE REPORT", "DOSE INFO", "DOSE SUMMARY", "PATIENT PROTOCOL", "EXAM SUMMARY", "SCREEN SAVE", "SCREENSHOT")
_MODALITIES = frozenset(("US", "IVUS", "OT", "SC", "XC", "ES", "DOC", "SR", "PR", "ECG", "HC", "DG"))
_HEADS = frozenset(
    ("HEAD", "BRAIN", "SKULL", "FACE", "HEADNECK", "NECK", "ORBIT", "SINUS", "JAW", "MAXILLA", "MANDIBLE", "EAR", "WHOLEBODY")
)


def burned_in(ds: Dataset) -> Reason | None:
    """Why the pixels of an image may show identifiers; None when its header gives no cause to fear so.

    Codes: ``burned_in`` where the header says it, ``burned_in_likely`` for kinds of image that usually carry text, and
    ``embedded_overlay`` for drawings kept in spare bits of the pixels. (PS3.3 C.7.6.1.1.8; PS3.15 E.3.1.)
    """
    if _text(ds, "BurnedInAnnotation") == "YES":
        return Reason("burned_in", "the header says that text is burned into the pixels")
    overlay = next((group for group in range(0x6000, 0x6020, 2) if _overlay_in_pixels(ds, group)), None)
    if overlay is not None:
        return Reason("embedded_overlay", "drawings are kept in spare bits of the pixels and cannot be removed with the header")
    kind = _kind(ds)
    return Reason("burned_in_likely", f"{kind}: such images usually carry text") if kind else None


def _kind(ds: Dataset) -> str:
    """What kind of image this is that usually shows text; empty for others."""
    sop_class = _text(ds, "SOPClassUID")
    known = next((name for root, name in _CLASSES.items() if sop_class == root or sop_class.startswith(root + ".")), "")
    if known:
        return known
    image_type = _text(ds, "ImageType")
    words = f"{_text(ds, 'SeriesDescription')} {_text(ds, 'ProtocolName')}"
    if any(word in image_type for word in _TYPE_WORDS) or any(word in words for word in _DESCRIPTION_WORDS):
        return "a saved screen, protocol or dose sheet"
    if _text(ds, "ConversionType"):
        return "a digitised or converted picture"
    if _text(ds, "Modality") in _MODALITIES:
        return "a modality that writes on its images"
    if _text(ds, "SamplesPerPixel") not in ("", "1") or _text(ds, "PhotometricInterpretation").startswith(
        ("RGB", "YBR", "PALETTE")
    ):
        return "a colour picture"
    return ""


def face_visible(ds: Dataset) -> bool:
    """True when a face may be rebuilt from the images: the header says so, or names the head. medvl removes no face."""
    part = "".join(mark for mark in _text(ds, "BodyPartExamined") if mark.isalpha())
    return _text(ds, "RecognizableVisualFeatures") == "YES" or part in _HEADS


def _overlay_in_pixels(ds: Dataset, group: int) -> bool:
    """An overlay without data of its own lies in the pixel words (retired in 2004, still found)."""
    return (group << 16 | 0x0010) in ds and (group << 16 | 0x3000) not in ds


def _text(ds: Dataset, keyword: str) -> str:
    """The attribute in upper case; empty when absent or not to be read."""
    try:
        value = ds.get(keyword)
    except (AttributeError, KeyError, LookupError, NotImplementedError, TypeError, ValueError):
        return ""
    return str(value if value is not None else "").upper().strip()
