"""Text steps of published releases, kept for faithful comparison only; nothing in medvl calls them by default."""

from __future__ import annotations

import re

_KEPT = re.compile(r"(?<=\d)\.(?=\d)|(?<=R)\.(?=E\.N\.A\.L)|(?<=R\.E)\.(?=N\.A\.L)|(?<=R\.E\.N)\.(?=A\.L)")
_HELD = "\ue000"  # stands for a full stop that must live through the deletion
_NUMBERED = re.compile(r"\b\d+[.)、,-]")


def strip_numbers(text: str) -> str:
    """A report as the RenalCLIP release cleans it: every whole number with one of ``. ) 、 , -`` behind it is deleted.

    Decimals and ``R.E.N.A.L`` are protected; each line that is not empty gets a full stop where it has none. It was meant for
    list numbers and damages values: "2-3 cm" becomes "3 cm.", "35-40 HU" becomes "40 HU.", "Bosniak grade 2." becomes
    "Bosniak grade." and "T11-12." becomes "T11-.". Use it to repeat the release's texts, not to clean your own.
    """
    lines = []
    for line in text.splitlines():
        stripped = _NUMBERED.sub("", _KEPT.sub(_HELD, line)).strip()
        if stripped and not stripped.endswith((".", "。")):
            stripped += "."
        lines.append(stripped.replace(_HELD, "."))
    return "\n".join(lines)
