"""The patient's age at the study, from the header."""

from __future__ import annotations

import re
from datetime import date

from medvl.dicom import header as dcm

PATIENT_AGE, BIRTH_DATE, STUDY_DATE = 0x00101010, 0x00100030, 0x00080020
OLDEST = 130.0
_DAYS = {"D": 1.0, "W": 7.0, "M": 30.4375, "Y": 365.25}


def age_years(header: dcm.Values) -> float | None:
    """Years at the study: what (0010,1010) Patient's Age says, else from birth date to study date.

    Args:
        header: tag number to raw value.

    Returns:
        0 to 130; None where the header tells neither, or nothing that can be an age.
    """
    told = re.fullmatch(r"(\d{1,3})([DWMY])", dcm.text(header, PATIENT_AGE).upper())
    born, seen = _day(dcm.text(header, BIRTH_DATE)), _day(dcm.text(header, STUDY_DATE))
    if told:
        years = int(told[1]) * _DAYS[told[2]] / _DAYS["Y"]
    elif born and seen:
        years = (seen - born).days / _DAYS["Y"]
    else:
        return None
    return years if 0 <= years <= OLDEST else None


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:8]}") if re.fullmatch(r"\d{8}", text) else None
    except ValueError:
        return None
