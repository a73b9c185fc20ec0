"""Identifiers taken out of report texts: those that the row and the scan's header name, then what looks like one.

What stays is a mark such as ``[DATE]``, always the same, so that equal texts stay equal. Rules are made for English with the
titles and forms of some European languages. They do not know a name that nothing announces and no column holds; a person must
read a sample before texts leave the hospital.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources

from medvl.text.ontology import NAMED

OLDEST = 89
_MONTH = (
    r"(?:jan(?:uary|uar)?|feb(?:ruary|ruar)?|mar(?:ch)?|märz|apr(?:il)?|may|mai|june?|juni|july?|juli|aug(?:ust)?|sept?(?:ember)?|"
    r"o[ck]t(?:ober)?|nov(?:ember)?|de[cz](?:ember)?)"
)
_CLOCK = r"(?:[01]?\d|2[0-3]):[0-5]\d"
_TIME = rf"(?<=\bat ){_CLOCK}(?::[0-5]\d)?|\b{_CLOCK}:[0-5]\d\b|\b{_CLOCK} ?(?:[ap]\.?m\b\.?|hrs?\b|uhr\b)"
_CAPITAL = r"(?:[A-ZÀ-ÖØ-Þ]\.(?=[ ]?[A-ZÀ-ÖØ-Þ])|[A-ZÀ-ÖØ-Þ][\w'’-]*)"
_NAMES = rf"{_CAPITAL}(?:[ ,]+(?:(?:van|von|de|der|den|la|le|di|da|el|al|bin)[ ]+)*{_CAPITAL}){{0,2}}"
_TITLES = r"(?:Drs?|Prof(?:essor)?|Doctor|Doktor|Mrs?|Ms|Miss|Mme|Herrn?|Frau|Sra?|PD)"
_SIGNS = (
    r"(?:(?:electronically |e-)?signed(?: off)?(?: by)?|dictated by|reported by|reviewed by|verified by|approved by|"
    r"transcribed by|referring (?:physician|doctor|clinician)|referred by|referrer|requesting (?:physician|doctor|clinician)|"
    r"requested by|radiologist|attending|resident|consultant|patient(?:'s)? name|patient|name|discussed with|"
    r"communicated (?:to|with))"
)
_IDS = r"(?:mrn|m\.r\.n\.|pat(?:ient)?[ .]*id|pid|accession|acc|nhs|ssn|insurance|case|exam|order|study|file|ref(?:erence)?)"
Rules = tuple[tuple[str, re.Pattern[str]], ...]
FIRST: Rules = (
    ("URL", re.compile(r"\b(?:https?|ftp)://\S+|\bwww\.\S+", re.IGNORECASE)),
    ("EMAIL", re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")),
)
RULES: Rules = (
    ("ID", re.compile(r"\b[0-2](?:\.\d+){5,}\b")),
    ("DATE", re.compile(r"\b(?:19|20)\d\d[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])\b(?:[T ][\d:]{5,8})?")),
    ("DATE", re.compile(r"\b(?:0?[1-9]|[12]\d|3[01])[-/.](?:0?[1-9]|[12]\d|3[01])[-/.](?:(?:19|20)\d\d|\d\d)\b(?![.,]?\d)")),
    ("DATE", re.compile(r"\b(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\b")),
    ("DATE", re.compile(rf"\b(?:[0-3]?\d(?:st|nd|rd|th|\.)?[ -](?:of )?)?{_MONTH}\.?,?[ -]+(?:19|20)\d\d\b", re.IGNORECASE)),
    ("DATE", re.compile(rf"\b{_MONTH}\.? [0-3]?\d(?:st|nd|rd|th)?,? (?:19|20)\d\d\b", re.IGNORECASE)),
    ("DATE", re.compile(rf"\b[0-3]?\d-{_MONTH}-\d\d\b", re.IGNORECASE)),
    ("TIME", re.compile(_TIME, re.IGNORECASE)),
    ("PHONE", re.compile(r"(?:\b(?:tel(?:e[pf]h?one?)?|phone|fax|pager|bleep|ext)\.?:? *)\+?[\d(][\d ()/.-]{2,}\d", re.I)),
    ("PHONE", re.compile(r"(?<!\w)(?:\+\d{1,3}[ -]?|00\d{2}[ -]?)(?:\(?\d+\)?[ /-]?){2,}\d|\(?\b\d{3}\)?[ -]\d{3}-\d{4}\b")),
    ("ID", re.compile(rf"(?<!\w)(?i:{_IDS})\.?(?: *(?i:no|nr|number|num|id))?\.? *[:#=]+ *(?=\S*\d)[\w./-]{{3,}}")),
    ("ID", re.compile(rf"(?<!\w)(?i:{_IDS})\.? +(?i:no|nr|number|num)\.? *:? *(?=\S*\d)[\w./-]{{3,}}")),
    ("ID", re.compile(r"\b[A-Z]{1,4}-?\d{6,}\b|\b\d{7,}\b|\b\d{3}-\d{2}-\d{4}\b")),
    ("NAME", re.compile(rf"(?<!\w){_TITLES}\b\.?(?: *(?:med|habil|Dr|Prof)\b\.?)* +{_NAMES}")),
    ("NAME", re.compile(rf"(?<!\w)(?i:{_SIGNS})(?i:[ ]*[:=]+[ ]*| by[ ]+)(?:{_TITLES}\b\.? *)*{_NAMES}")),
    ("NAME", re.compile(rf"(?<!\w)(?i:signed|dictated|reported|reviewed|verified|approved) (?i:by) +{_NAMES}")),
    ("AGE", re.compile(r"\b(?:9\d|1[0-2]\d)(?=[ -]*(?:years?|yrs?|y/?o|jähr)\b)", re.IGNORECASE)),
)


def scrub(text: str, identity: Iterable[str] = ()) -> tuple[str, Counter[str]]:
    """The text without identifiers, and how many of each kind were taken out.

    Args:
        text: of a report.
        identity: strings that identify this patient: ids, names (also as DICOM writes them), dates, accession numbers.
    """
    found: Counter[str] = Counter()
    for kind, pattern in FIRST:
        text = _replaced(text, kind, pattern, found)
    for value in sorted({v.strip() for v in identity}, key=lambda v: (-len(v), v)):
        for kind, pattern in _patterns(value):
            text = _replaced(text, kind, pattern, found)
    for kind, pattern in RULES:
        text = _replaced(text, kind, pattern, found)
    return text, found


def _replaced(text: str, kind: str, pattern: re.Pattern[str], found: Counter[str]) -> str:
    text, n = pattern.subn(f"[{kind}]", text)
    found[kind] += n
    return text


def _patterns(value: str) -> list[tuple[str, re.Pattern[str]]]:
    """What a known identifier may look like in a text."""
    day = _day(value)
    if day is not None:
        short = f"{day:%y}"
        forms = [f"{day:%Y%m%d}", *(f"{day:%Y}{s}{day:%m}{s}{day:%d}" for s in "-/.")]
        forms += [f"{a}{s}{b}{s}{c}" for a, b in _orders(day) for s in "-/." for c in (f"{day:%Y}", short)]
        return [("DATE", _any(forms))]
    if any(c.isdigit() for c in value):
        bare = re.sub(r"[\W_]", "", value)
        return [("ID", _any([value, *([bare] if len(bare) > 4 else [])]))] if len(bare) > 2 else []
    return list(_name(value))


def _orders(day: datetime.date) -> list[tuple[str, str]]:
    days, months = {f"{day:%d}", str(day.day)}, {f"{day:%m}", str(day.month)}
    return [pair for d in sorted(days) for m in sorted(months) for pair in ((d, m), (m, d))]


def _day(value: str) -> datetime.date | None:
    from medvl.dataset.cells import date

    return date(value, "dmy") if re.search(r"\d{4}", value) and not re.fullmatch(r"\d{5}", value) else None


def _name(value: str) -> Iterable[tuple[str, re.Pattern[str]]]:
    """The whole name in any order, then each part of it that is no word of reports."""
    parts = [p for p in re.split(r"[\^=,;\s.]+", value) if len(p) > 1 and re.search(r"[^\W\d_]", p)]
    if not parts:
        return
    if len(parts) > 1:
        both = "|".join(map(re.escape, sorted(parts, key=len, reverse=True)))
        yield "NAME", re.compile(rf"(?<!\w)(?:{both})(?:[\s,.^]+(?:{both}))+(?!\w)", re.IGNORECASE)
    for part in parts:
        plain = re.escape(part)
        if part.lower() in report_words() or len(part) < 3:
            yield "NAME", re.compile(rf"(?<!\w)(?:{_TITLES}\b\.?|(?i:{_SIGNS}) *[:=]) *{plain}(?!\w)")
        else:
            yield "NAME", re.compile(rf"(?<!\w){plain}(?:['’]s)?(?!\w)", re.IGNORECASE)


def _any(forms: Iterable[str]) -> re.Pattern[str]:
    body = "|".join(re.escape(form) for form in sorted(set(forms), key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{body})(?!\w)", re.IGNORECASE)


@cache
def report_words() -> frozenset[str]:
    """Words that report rules run on, which a surname may be too (Stone, Large, Hilton is none): kept unless a title leads."""
    folder = resources.files("medvl.text").joinpath("ontologies")
    texts = [folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8") for name in (*NAMED, "cues", "report")]
    return frozenset(word.lower() for text in texts for word in re.findall(r"[A-Za-zÀ-ÿ]{3,}", text))


def counted(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Totals by kind, sorted."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return {kind: n for kind, n in sorted(total.items()) if n}
