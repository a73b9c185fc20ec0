"""Coded concepts of the objects: standard codes where there are any, the private scheme 99MEDVL where there is none.

Codes of findings are data of the findings list. The codes here name what every list needs: regions, sides, verdicts and the kinds
of number. DCM and UCUM codes are those of DICOM PS3.16; SCT is SNOMED CT.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.coding import Code as Concept

from medvl.delivery.uids import uid_of
from medvl.text.prompts import Code, Finding, FindingList

PRIVATE = "99MEDVL"


def concept(scheme: str, value: str, meaning: str) -> Concept:
    """A coded concept in the order in which people read it; it cannot be changed, unlike highdicom's."""
    return Concept(value, scheme, meaning)


def private(value: str, meaning: str) -> Concept:
    """A concept of medvl's own: the value as it is up to 16 characters, longer ones shortened with a hash so that two differ."""
    short = value if len(value) <= 16 else f"{value[:9]}-{hashlib.sha256(value.encode()).hexdigest()[:6]}"
    return Concept(short, PRIVATE, meaning[:64])


REGIONS: Mapping[str, Concept] = {
    "kidney": concept("SCT", "64033007", "Kidney"),
    "chest": concept("SCT", "816094009", "Chest"),
    "heart": concept("SCT", "80891009", "Heart"),
    "abdomen": concept("SCT", "818981001", "Abdomen"),
}
SIDES: Mapping[str, Concept] = {"left": concept("SCT", "7771000", "Left"), "right": concept("SCT", "24028007", "Right")}

PRESENCE = concept("DCM", "121052", "Presence of property")
VERDICTS: Mapping[str, Concept] = {
    "present": concept("SCT", "52101004", "Present"),
    "absent": concept("SCT", "272519000", "Absent"),
    "undecided": concept("DCM", "121059", "Presence Undetermined"),
}
UNDECIDED_BECAUSE = private("undecided-reason", "Undecided because")
CERTAINTY = concept("DCM", "111012", "Certainty of Finding")
PERCENTILE = concept("DCM", "121415", "Percentile Ranking of measurement")
THRESHOLD = concept("DCM", "122411", "Threshold Value")
UNDECIDED_FROM = private("undecided-from", "Undecided from this certainty on")
UNDECIDED_TO = private("undecided-to", "Undecided up to this certainty")
INTERVAL_FROM = private("interval-from", "Lower end of the 95% interval of the certainty")
INTERVAL_TO = private("interval-to", "Upper end of the 95% interval of the certainty")
MARGIN = private("margin", "Margin of present over absent wording")
WITHOUT_PEAK = private("without-peak", "Certainty after the peak was filled in")
WITHOUT_OTHER = private("without-other", "Certainty after other places were filled in")
NOTED = private("noted", "Noted")
SURVIVAL = private("survival", "Survival estimate")
LOG_HAZARD = private("log-hazard", "Log hazard ratio against the training mean")
COMMENT = concept("DCM", "121106", "Comment")
CT_PROCEDURE = concept("LN", "25045-6", "CT unspecified body region")
DEVICE = concept("DCM", "121007", "Device")
REPORT_TITLE = concept("DCM", "126000", "Imaging Measurement Report")
DOCUMENT_TITLE = concept("LN", "18748-4", "Diagnostic Imaging Report")
ABNORMAL = concept("SCT", "49755003", "Morphologically Abnormal Structure")
LEARNED = concept("DCM", "123110", "Artificial Intelligence")
PERCENT = concept("UCUM", "%", "Percent")
ONE = concept("UCUM", "1", "no units")
LIBRARY = concept("DCM", "111028", "Image Library")
LIBRARY_GROUP = concept("DCM", "126200", "Image Library Group")
SOURCE = concept("SCT", "260753009", "Source")
MODALITY = concept("DCM", "121139", "Modality")
CT = concept("DCM", "CT", "Computed Tomography")
FRAME_OF_REFERENCE = concept("DCM", "112227", "Frame of Reference UID")


def survival_at(days: int) -> Concept:
    """The concept of a survival probability at a number of days."""
    return private(f"survival-{days}d", f"Estimated probability of survival at {days} days")


def scheme_item() -> CodingSchemeIdentificationItem:
    """What the header says of the private scheme."""
    return CodingSchemeIdentificationItem(
        PRIVATE,
        name="medvl concepts without a standard code",
        uid=uid_of("coding scheme", PRIVATE),
        responsible_organization="medvl",
    )


def finding_code(key: str, label: str, findings: FindingList | None) -> Concept:
    """The finding's code in its list, else a private one."""
    finding = _finding(key, findings)
    return _coded(finding.code) if finding is not None and finding.code is not None else private(key, label)


def finding_site(key: str, region: str, findings: FindingList | None) -> tuple[Concept, Concept | None]:
    """Where a finding lies and its side: as its list says, else the region it was asked of."""
    finding = _finding(key, findings)
    kind, _, end = region.rpartition("_")
    kind, side = (kind, end) if end in SIDES else (region, None)
    if finding is not None and finding.side is not None:
        side = finding.side
    if finding is not None and finding.site is not None:
        site = _coded(finding.site)
    else:
        site = REGIONS.get(kind) or private(kind, kind.replace("_", " ").capitalize())
    return site, SIDES[side] if side else None


def _finding(key: str, findings: FindingList | None) -> Finding | None:
    return next((f for f in findings.findings if f.key == key), None) if findings is not None else None


def _coded(code: Code) -> Concept:
    return Concept(code.value, code.scheme, code.meaning)
