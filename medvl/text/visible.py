"""Drop what no image can show: recommendations, comparisons with earlier examinations, clinical history. Conservative."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from medvl.text.labels import measures
from medvl.text.ontology import phrases, table

_BRACKET = re.compile(r"\s*\([^()]*\)")
_EARLIER = re.compile(r"\b(?:previous|previously|prior|earlier)\b", re.IGNORECASE)
_NO_CHANGE = re.compile(
    r"\bno (?:\w+ ){0,3}(?:change|difference|progression|regression)s?\b.*?\b(?:detected|found|observed|seen|noted|identified)\b"
    r"|\bthere (?:is|are|was|were|has been) no (?:\w+ ){0,3}(?:change|difference|progression|regression)s?$",
    re.IGNORECASE,
)
_OPENS = re.compile(r"^(?:it is recommended|clinical|correlation|further|follow-?up|comparison)\b", re.IGNORECASE)
_PIECES = re.compile(r"(?<!\d)[,;]\s+|[,;](?=\s)")
_DANGLING = re.compile(r"\b(?:and|or|but|which|that|with|of|in|to|for|the|a|an|as|because|since|although)$", re.IGNORECASE)
_BOUND = re.compile(r"^(?:which|whose|that|who|and|or|but|although|though|measuring)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Visible:
    """Sentences after the filter.

    Args:
        kept: sentences, in order, some of them shortened.
        dropped: (words, reason) of every sentence, clause or bracket left out; ``recommendation``, ``comparison``, ``history``.
    """

    kept: tuple[str, ...]
    dropped: tuple[tuple[str, str], ...]


def visible_sentences(sentences: Sequence[str]) -> Visible:
    """Sentences without those, and without those clauses, that no image can show.

    A sentence that shows or measures anything is kept; of it only brackets on earlier examinations and whole clauses at either
    end go. No other character of a kept sentence changes, save that it starts with a capital and ends with its full stop.
    """
    kept: list[str] = []
    dropped: list[tuple[str, str]] = []
    for sentence in sentences:
        rest = _without_brackets(sentence, dropped)
        rest = _without_ends(rest, dropped)
        if rest:
            kept.append(rest)
    return Visible(tuple(kept), tuple(dropped))


def unseen(piece: str) -> str | None:
    """Why no image can show what a piece of a sentence says; None when one might."""
    piece = piece.strip(" ,;.")
    if next(measures(piece), None) or phrases(tuple(table("report")["shown"])).search(_NO_CHANGE.sub("", piece)):
        return None
    for reason, patterns in table("report")["unseen"].items():
        if phrases(tuple(patterns), False).search(piece):
            return str(reason)
    return None


def _without_brackets(sentence: str, dropped: list[tuple[str, str]]) -> str:
    """The sentence without brackets that tell of an earlier examination or recommend something."""
    for match in reversed(list(_BRACKET.finditer(sentence))):
        reason = "comparison" if _EARLIER.search(match.group()) else unseen(match.group().strip(" ()"))
        if reason:
            dropped.append((match.group().strip(), reason))
            sentence = sentence[: match.start()] + sentence[match.end() :]
    return sentence


def _without_ends(sentence: str, dropped: list[tuple[str, str]]) -> str:
    """The sentence without the clauses at its ends that cannot be seen; empty when nothing else is left."""
    cuts = [0, *(m.end() for m in _PIECES.finditer(sentence)), len(sentence)]
    pieces = [sentence[a:b] for a, b in pairwise(cuts)]
    reasons = [unseen(piece) for piece in pieces]
    whole = unseen(sentence) if len(pieces) == 1 or _OPENS.search(sentence) else None
    if whole or all(reasons):
        dropped.append((sentence, str(whole or reasons[0])))
        return ""
    first, last = 0, len(pieces)
    while reasons[first] == "comparison":
        first += 1
    while reasons[last - 1]:
        last -= 1
    body = "".join(pieces[first:last]).strip(" ,;")
    odd = body.count("(") != body.count(")") or _DANGLING.search(body) or _BOUND.search(body) or len(body.split()) < 2
    if odd or (first, last) == (0, len(pieces)):
        return sentence
    dropped += [(pieces[k].strip(" ,;"), str(reasons[k])) for k in (*range(first), *range(last, len(pieces)))]
    body = body if body.endswith((".", "!", "?")) else body + "."
    return body[:1].upper() + body[1:] if first else body
