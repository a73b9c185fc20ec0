"""What a cell says: numbers with a point or a comma, dates in one order a column, labels and sexes in many words."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from typing import Literal

from medvl.data.table import PHASE_NAMES
from medvl.errors import ConfigError

DateOrder = Literal["", "dmy", "mdy"]
PRESENT, ABSENT, UNCERTAIN = 1, 0, 2
_WORDS: Mapping[int, str] = {
    PRESENT: "1 1.0 yes y true t present positive pos + x ja j oui si sì sí vorhanden",
    ABSENT: "0 0.0 no n false f absent negative neg nein non kein",
    UNCERTAIN: "2 2.0 uncertain unsure possible possibly equivocal indeterminate unklar maybe u",
}
_LABELS = {word: value for value, words in _WORDS.items() for word in words.split()}
_SEX = {
    "F": "f female w weiblich frau woman femme femenino feminin 2",
    "M": "m male männlich maennlich mann man homme masculino masculin 1",
}
_SEXES = {word: sex for sex, words in _SEX.items() for word in words.split()} | {"o": "O", "other": "O", "divers": "O", "d": "O"}
_EVENT = {
    True: "1 1.0 true t yes y ja dead died deceased death verstorben tot event",
    False: "0 0.0 false f no n nein alive living lebend censored zensiert none",
}
_EVENTS = {word: value for value, words in _EVENT.items() for word in words.split()}
_SPLITS = {
    "train": "train training tr derivation development dev_train",
    "validation": "validation valid val tune tuning dev",
    "test": "test testing holdout held_out hold_out external",
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words.split()}
_PHASES = {
    "noncontrast": "native non_contrast nc unenhanced plain without nativ",
    "arterial": "art late_arterial early_arterial corticomedullary arteriell",
    "portal_venous": "portal venous pv pvp portalvenous portal_venous_phase portalvenos venos",
    "nephrographic": "nephro nephrographic_phase",
    "delayed": "delay excretory late urographic spat",
}
_PHASE_OF = {word: phase for phase, words in _PHASES.items() for word in words.split()} | {p: p for p in PHASE_NAMES}
_NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)(e[-+]?\d+)?", re.IGNORECASE)
_SERIAL = re.compile(r"\d{5}([.,]\d+)?")
_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?:[T ].*)?")
_PARTS = re.compile(r"(\d{1,2})[-/. ](\d{1,2})[-/. ](\d{4}|\d{2})(?: .*)?")
_EXCEL_DAY_0 = datetime.date(1899, 12, 30)
_FIRST, _LAST = datetime.date(1900, 1, 1), datetime.date(2100, 1, 1)


def number(text: str) -> float | None:
    """A number with a decimal point or comma; None for anything else."""
    return float(text.replace(",", ".")) if _NUMBER.fullmatch(text) else None


def label(text: str) -> int | None:
    """1 present, 0 absent, 2 uncertain; None for anything else."""
    return _LABELS.get(text.lower())


def sex(text: str) -> str | None:
    """F, M or O; None for anything else."""
    return _SEXES.get(text.lower())


def event(text: str) -> bool | None:
    """Whether it happened; None for anything else."""
    return _EVENTS.get(text.lower())


def split(text: str) -> str | None:
    """A split's name; None for anything else."""
    return _SPLIT_OF.get(_word(text))


def phase(text: str) -> str | None:
    """A phase's name; None for anything else."""
    word = _word(text).replace("ö", "o").replace("ä", "a")
    return _PHASE_OF.get(word) or _PHASE_OF.get(word.removesuffix("_phase"))


def _word(text: str) -> str:
    return re.sub(r"[\s-]+", "_", text.strip().lower())


def date_order(column: str, texts: Iterable[str], wanted: DateOrder = "") -> DateOrder:
    """Which of day and month a column puts first, from its own values; empty where none of them leaves a choice.

    Raises:
        ConfigError: its values fit both orders, or neither; `wanted` decides.
    """
    if wanted:
        return wanted
    pairs = [(int(m[1]), int(m[2])) for text in texts if (m := _PARTS.fullmatch(text)) and "." not in text]
    day_first, month_first = any(a > 12 for a, _ in pairs), any(b > 12 for _, b in pairs)
    if not pairs or (not day_first and not month_first and all(a == b for a, b in pairs)):
        return ""
    if day_first == month_first:
        what = "both day and month first" if day_first else "dates that can be read day or month first"
        raise ConfigError(f"column {column!r} holds {what}; say which with --dates dmy or --dates mdy")
    return "dmy" if day_first else "mdy"


def date(text: str, order: DateOrder = "") -> datetime.date | None:
    """A day: 2021-03-04, 20210304, 04.03.2021 (always day first), 04/03/2021 in `order`, or Excel's number; None otherwise."""
    try:
        if re.fullmatch(r"(19|20)\d{6}", text):
            return datetime.datetime.strptime(text, "%Y%m%d").date()
        if _SERIAL.fullmatch(text):
            return _EXCEL_DAY_0 + datetime.timedelta(days=int(float(text.replace(",", "."))))
        if match := _ISO.fullmatch(text):
            found = datetime.date(int(match[1]), int(match[2]), int(match[3]))
        elif match := _PARTS.fullmatch(text):
            month_first = order == "mdy" and "." not in text
            day, month = (match[2], match[1]) if month_first else (match[1], match[2])
            found = datetime.date(_year(match[3]), int(month), int(day))
        else:
            return None
    except ValueError:
        return None
    return found if _FIRST <= found <= _LAST else None


def _year(text: str) -> int:
    """Two digits are of the last hundred years, seen from 2049."""
    return int(text) if len(text) == 4 else int(text) + (2000 if int(text) < 50 else 1900)
