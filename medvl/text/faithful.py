"""Text steps of published releases, kept for faithful comparison only; nothing in medvl calls them by default."""

from __future__ import annotations

import re

_DECIMAL = re.compile(r"\d\.\d")
_NUMBERED = re.compile(r"\b\d+\s*[.)、,-]\s*")
_POINT, _SCORE = "\ue000", "\ue001"  # stand for a decimal point and for R.E.N.A.L, which live through the deletion
_ENDS = (".", "。", "；", "!", "?", ";")


def strip_numbers(text: str) -> str:
    """A report as the RenalCLIP release cleans it: each whole number before one of ``. ) 、 , -`` goes, with the spaces around.

    Decimals and ``R.E.N.A.L`` are protected; each line that is not blank gets a full stop unless it ends in one of
    ``. 。 ； ! ? ;``. It was meant for list numbers and damages values: "2-3 cm" becomes "3 cm.", "5 - 7 mm" becomes "7 mm.",
    "35-40 HU" becomes "40 HU.", "Bosniak grade 2." becomes "Bosniak grade." and "T11-12." becomes "T11-.". Decimals suffer too:
    "3.5-4 cm" becomes "3.4 cm." Use it to repeat the release's texts, not to clean your own.

    Source: `preprocess_text` of dt-yuhui/RenalCLIP@19381cd, with its placeholders put back as its `restore_special_cases` does.
    """
    held = _DECIMAL.sub(lambda found: found[0].replace(".", _POINT), text).replace("R.E.N.A.L", _SCORE)
    lines = [_ended(line) for line in _NUMBERED.sub("", held).split("\n")]
    return "\n".join(lines).replace(_POINT, ".").replace(_SCORE, "R.E.N.A.L")


def _ended(line: str) -> str:
    said = line.strip()
    return line if not said or said.endswith(_ENDS) else f"{said}."
