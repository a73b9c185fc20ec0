"""A radiology report cut into sections, sentences and sides. Rules only; tables in `ontologies/report.yaml`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from medvl.text.ontology import phrases, table

Where = Literal["left", "right", "both"]
REGIONS = ("kidney_left", "kidney_right", "chest")
_LIST_MARK = re.compile(r"^\s*(?:\(?\d{1,2}[.)]|[-*•])\s+")
_ITEM = re.compile(  # quotes and bullets that open an item of an impression, or close one
    r"(?:^|(?<=[\s.]))[\"“”•·]+(?:\s+|(?=[A-Z]))|(?<=[.!?])[\"”](?=\s|$)|(?<=\w)[\"”](?=\s+[A-Z])"
)
_SUBHEADER = re.compile(r"^([A-Z][\w ,/&()-]{1,40}):")
_MEASURE = re.compile(r"\d")
_NORMAL = re.compile(r"(?:(?:this|it|appearances?) (?:is|are) )?(?:normal|unremarkable|nad|no abnormality)\b", re.IGNORECASE)


@dataclass(frozen=True)
class StructuredReport:
    """What a report says, by section and by region.

    Args:
        sections: section name (``technique``, ``findings``, ``impression``, ``history``...) to its text.
        regions: ``kidney_left``, ``kidney_right`` and ``chest`` to the sentences of findings and impression that speak of
            them, in order, joined by spaces; empty where nothing does. Statements on both sides are in both.
    """

    sections: dict[str, str]
    regions: dict[str, str]

    def said(self) -> str:
        """Findings and impression, a line each."""
        return "\n".join(self.sections[name] for name in ("findings", "impression") if name in self.sections)


def parse_report(text: str) -> StructuredReport:
    """Sections and region texts of a report in English; never raises on odd text."""
    sections = split_sections(text)
    said: dict[str, list[str]] = {region: [] for region in REGIONS}
    for name in ("findings", "impression"):
        for line in _paragraphs(sections.get(name, "")):
            for region, sentence in _assign(line):
                said[region].append(sentence)
    return StructuredReport(sections, {region: " ".join(sentences) for region, sentences in said.items()})


def split_sections(text: str) -> dict[str, str]:
    """Section name to text. Text before the first header is ``preamble``, or ``findings`` when no header names those."""
    names = {name: "|".join(sorted(words, key=len, reverse=True)) for name, words in table("report")["sections"].items()}
    groups = "|".join(f"(?P<{name}>{words})" for name, words in names.items())
    header = re.compile(rf"^[ \t]*(?:{groups})[ \t]*(?::|$)", re.IGNORECASE | re.MULTILINE)
    inline = re.compile(rf"(?<=\.)[ \t]+(?:{groups.upper()}):")
    marks = sorted([*header.finditer(text), *inline.finditer(text)], key=lambda mark: mark.start())
    found: dict[str, str] = {}
    before = text[: marks[0].start()].strip() if marks else text.strip()
    for k, mark in enumerate(marks):
        end = marks[k + 1].start() if k + 1 < len(marks) else len(text)
        name = str(mark.lastgroup).lower()
        body = text[mark.end() : end].strip()
        found[name] = f"{found[name]}\n{body}" if name in found else body
    if before:
        found = {("preamble" if "findings" in found else "findings"): before, **found}
    return found


def split_sentences(text: str) -> list[str]:
    """Sentences of one paragraph; full stops of decimals, list numbers and abbreviations do not end one."""
    return [sentence for item in _ITEM.split(text) for sentence in _split_item(item)]


def _split_item(text: str) -> list[str]:
    text = re.sub(r"\s+", " ", text).strip()
    sentences, start = [], 0
    for stop in re.finditer(r"[.!?]+(?=\s+[A-Z0-9(\"'])", text):
        last = re.search(r"(\S+)$", text[start : stop.start()])
        word = last.group(1).lower() if last else ""
        listed = word.isdigit() and len(word) <= 2 and text[start : stop.start()].strip() == word
        if listed or word.strip("(") in table("report")["abbreviations"]:
            continue
        sentences.append(text[start : stop.end()].strip())
        start = stop.end()
    sentences.append(text[start:].strip())
    return [stripped for s in sentences if (stripped := _LIST_MARK.sub("", s))]


def _paragraphs(text: str) -> list[str]:
    """Lines of meaning: a line that only continues the one above is joined to it."""
    lines: list[str] = []
    for raw in text.splitlines():
        line = raw.strip()
        if not line:
            lines.append("")
        elif lines and lines[-1] and lines[-1][-1] not in ".:;!?" and not _LIST_MARK.match(raw) and not _SUBHEADER.match(line):
            lines[-1] += " " + line
        else:
            lines.append(line)
    return [line for line in lines if line]


def side_of(text: str) -> Where | None:
    """The side a text names; None without one, ``both`` when both are named."""
    sides = {where for where, _, _ in _side_marks(text)}
    if not sides:
        return None
    return next(iter(sides)) if len(sides) == 1 else "both"


def _side_marks(text: str) -> list[tuple[Where, int, int]]:
    """Non-overlapping mentions of a side, in order."""
    marks: list[tuple[Where, int, int]] = []
    for where in ("both", "left", "right"):
        for match in phrases(tuple(table("report")["sides"][where])).finditer(text):
            if not any(start < match.end() and match.start() < end for _, start, end in marks):
                marks.append((where, match.start(), match.end()))  # type: ignore[arg-type]
    if {"left", "right"} <= {where for where, _, _ in marks}:
        marks = [mark for mark in marks if mark[0] != "both" or _names_both(text[mark[1] : mark[2]])]
    return sorted(marks, key=lambda mark: mark[1])


def _names_both(words: str) -> bool:
    """False for a plain "kidneys" or "both", which only opens a sentence that then takes the sides one by one."""
    return bool(re.search(r"\b(?:left|right)\b", words, re.IGNORECASE))


def side_pieces(sentence: str) -> list[tuple[Where | None, str]]:
    """A sentence cut so that each piece speaks of one side; pieces without a verb get the sentence's beginning back."""
    paired = _respectively(sentence)
    if paired:
        return paired
    marks = _side_marks(sentence)
    if len({where for where, _, _ in marks}) < 2:
        return [(marks[0][0] if marks else None, sentence)]
    cut = phrases(tuple(table("report")["cuts"]), False)
    pieces: list[tuple[Where | None, str]] = []
    begin = 0
    for (where, _, end), (following, start, _) in pairwise(marks):
        if where == following:
            continue
        cuts = list(re.finditer(rf"(?<!\w)(?:{cut.pattern})(?!\w)|[;,]", sentence[end:start], re.IGNORECASE))
        at = end + cuts[0].start() if cuts else start
        pieces.append((where, sentence[begin:at].strip(" ,;")))
        begin = at
    pieces.append((marks[-1][0], sentence[begin:].strip(" ,;")))
    head = sentence[: min(marks[0][1], (_MEASURE.search(sentence) or re.search("$", sentence)).start())]  # type: ignore[union-attr]
    head = re.sub(r"(?:\b(?:the|a|an|in|on)\s*)+$", "", head, flags=re.IGNORECASE).strip()
    return [(where, _stopped(piece if k == 0 else _whole(piece, head))) for k, (where, piece) in enumerate(pieces)]


def _stopped(piece: str) -> str:
    """The piece as a sentence of its own."""
    piece = piece[:1].upper() + piece[1:]
    return piece if piece.endswith((".", "!", "?")) else piece + "."


def _whole(piece: str, head: str) -> str:
    """`piece` with `head` before it when it has no verb of its own."""
    bare = re.sub(r"^(?:and|while|whereas|or|[;,])\s+", "", piece, flags=re.IGNORECASE).strip(" ,;")
    return bare if not head or phrases(tuple(table("report")["verbs"])).search(bare) else f"{head} {bare}"


def _respectively(sentence: str) -> list[tuple[Where | None, str]]:
    """Two statements from one such as "right and left kidneys measure 11.2 and 10.5 cm, respectively"; else an empty list."""
    if "respectively" not in sentence.lower():
        return []
    sides = re.findall(r"\b(left|right)\b", sentence, re.IGNORECASE)
    sizes = re.findall(r"(\d+(?:\.\d+)?)\s*(mm|cm)?", sentence)
    if len(sides) != 2 or len(sizes) != 2:
        return []
    unit = sizes[1][1] or sizes[0][1]
    middle = re.search(r"\b(?:left|right)\b(?!.*\b(?:left|right)\b)(.*?)\d", sentence, re.IGNORECASE)
    words = re.sub(r"\bkidneys\b", "kidney", middle.group(1).strip()) if middle else ""
    tail = re.sub(r",?\s*respectively", "", sentence[sentence.rfind(sizes[1][0]) + len(sizes[1][0]) :], flags=re.IGNORECASE)
    tail = re.sub(r"^\s*(?:mm|cm)", "", tail)
    return [
        (side.lower(), f"{side.capitalize()} {words} {number} {own or unit}{tail}")  # type: ignore[misc]
        for side, (number, own) in zip(sides, sizes, strict=True)
    ]


def topics_of(text: str) -> set[str]:
    """Which of ``kidney``, ``chest`` and ``other`` a text names."""
    return {name for name, words in table("report")["topics"].items() if phrases(tuple(words)).search(text)}


def _names_organs_only(header: str) -> bool:
    """True for "Right kidney" or "Kidneys and ureters", False for "Length of the left kidney", which is part of a statement."""
    words = header
    for patterns in (*table("report")["topics"].values(), *table("report")["sides"].values(), ["and", "the", "other"]):
        words = phrases(tuple(patterns)).sub("", words)
    return not words.strip(" ,/&()-")


_REFERENTS = (r"\b(?:mass|tumou?r|neoplasm|lesion)", r"\bcysts?\b", r"\b(?:stone|calcul)")


def _last_named(sentence: str, assigned: list[tuple[str, str]]) -> Where | None:
    """The side where what "the tumour", "the cyst" or "the stone" means was last named."""
    for pattern in _REFERENTS:
        if re.search(r"\bthe " + pattern, sentence, re.IGNORECASE):
            for region, earlier in reversed(assigned):
                if (
                    region.startswith("kidney")
                    and re.search(pattern, earlier, re.IGNORECASE)
                    and side_of(earlier) in {"left", "right"}
                ):
                    return "left" if region == "kidney_left" else "right"
    return None


def _under(header: str, sentence: str) -> str:
    """The sentence; "Normal." keeps the header above it, without which it says nothing."""
    return f"{header} {sentence}" if header and _NORMAL.match(sentence) and not topics_of(sentence) else sentence


def _assign(paragraph: str) -> list[tuple[str, str]]:
    """(region, sentence) for each statement of a paragraph; sub-headers and earlier sentences lend topic and side."""
    header = _SUBHEADER.match(paragraph)
    topic: set[str] = topics_of(header.group(1)) if header else set()
    scope = side_of(header.group(1)) if header else None
    lent = ""
    if header and _names_organs_only(header.group(1)) and not paragraph[header.end() :].strip()[:1].isdigit():
        lent, paragraph = header.group(0), paragraph[header.end() :]
    before = scope
    assigned: list[tuple[str, str]] = []
    for sentence in (_under(lent, said) for said in split_sentences(paragraph)):
        own = topics_of(sentence)
        follows = bool(phrases(tuple(table("report")["anaphora"]), True).search(sentence))
        if (own and not follows) or (not topic and own):
            topic = own
        for side, piece in side_pieces(sentence):
            where = side
            if where is None:
                earlier = _last_named(sentence, assigned) if follows else None
                where = earlier or (before if follows or not own or scope else "both")
            if "kidney" in topic:
                sides = ("left", "right") if where in {"both", None} else (where,)
                assigned += [(f"kidney_{s}", piece) for s in sides]
                before = where
        if "chest" in topic:
            assigned.append(("chest", sentence))
    return assigned
