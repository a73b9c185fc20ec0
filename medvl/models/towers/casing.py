"""Does a tower's vocabulary know the words of the corpus, capitals included?"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from medvl.models.towers.base import TextTower

WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class CasingReport:
    """What became of the distinct words of a corpus.

    Args:
        words: distinct words looked at.
        unknown: share of them with a piece that is the unknown token.
        only_capitals: words that are unknown as written but known in lower case.
        lowers: the tokenizer gives capitals and small letters the same ids.
    """

    words: int
    unknown: float
    only_capitals: tuple[str, ...]
    lowers: bool


def casing_report(tower: TextTower, texts: Sequence[str]) -> CasingReport:
    """How a tower's tokenizer, as it is, reads the distinct words of `texts`."""
    words = sorted({word for text in texts for word in WORD.findall(text)})
    lost = _unknown(tower, words)
    written = [word for word, bad in zip(words, lost, strict=True) if bad and word != word.lower()]
    still = _unknown(tower, [word.lower() for word in written])
    capitals = tuple(word for word, bad in zip(written, still, strict=True) if not bad)
    same = tower.tokenize([word.upper() for word in words])["ids"], tower.tokenize([word.lower() for word in words])["ids"]
    lowers = bool(words) and same[0].shape == same[1].shape and bool((same[0] == same[1]).all())
    return CasingReport(len(words), sum(lost) / max(len(words), 1), capitals, lowers)


def warn_unknown(tower: TextTower, texts: Sequence[str], *, limit: float = 0.05) -> CasingReport:
    """The report, with a warning where capitals make words unknown, or more than `limit` of all words are."""
    report = casing_report(tower, texts)
    if report.only_capitals:
        warnings.warn(
            f"{len(report.only_capitals)} of {report.words} words are unknown to the text tower only because of capitals, "
            f"such as {report.only_capitals[0]}; set lower_case: true",
            stacklevel=2,
        )
    elif report.unknown > limit:
        warnings.warn(f"{report.unknown:.0%} of {report.words} words are unknown to the text tower; take another", stacklevel=2)
    return report


def _unknown(tower: TextTower, words: Sequence[str]) -> list[bool]:
    """Whether each word has an unknown piece."""
    if tower.unknown_id is None or not words:
        return [False] * len(words)
    found: list[bool] = (tower.tokenize(words)["ids"] == tower.unknown_id).any(1).tolist()
    return found
