"""A free text beside its negation.

One sentence is near every sentence about the same thing, "no mass" among them; what tells an image that shows it from one that
does not is the difference.
"""

from __future__ import annotations

import re

from medvl.text.report import split_sentences

MOST_WORDS = 14
_OPENING = re.compile(r"^(there (is|are)|ct shows|evidence of|presence of|showing|with)\s+", re.IGNORECASE)
_NEGATION = re.compile(r"^((there (is|are) )?no( evidence of)?|without( evidence of)?|absence of)\s+", re.IGNORECASE)
_ENDING = re.compile(r"\s+(is|are) (seen|present|noted|visible|identified)$", re.IGNORECASE)
_ARTICLE = re.compile(r"^(a|an|the|some)\s+", re.IGNORECASE)
Twins = tuple[list[str], list[str]]


def twins(text: str) -> Twins | None:
    """Sentences that say what `text` says, and sentences that deny it; None for what is no short statement, such as a report.

    "No stone" is turned round: what it says is the denial.
    """
    said = text.strip().rstrip(".").strip()
    if not said or len(split_sentences(text)) > 1 or len(said.split()) > MOST_WORDS or re.search(r"[;:]", said):
        return None
    negated = _NEGATION.match(said)
    thing = _ENDING.sub("", said[negated.end() :] if negated else _OPENING.sub("", said))
    if not thing or _NEGATION.match(f"{thing} "):
        return None
    first = thing.partition(" ")[0]
    thing = thing if len(first) > 1 and first.isupper() else thing[0].lower() + thing[1:]
    bare = _ARTICLE.sub("", thing)
    held = [f"{thing[0].upper()}{thing[1:]}.", f"There is {thing}.", f"CT shows {thing}."]
    denied = [f"No {bare}.", f"There is no {bare}.", f"No evidence of {bare}."]
    return (denied, held) if negated else (held, denied)
