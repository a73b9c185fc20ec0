"""A report of a label map: size, place and growth of what was outlined, in the words of phantom reports, and nothing else.

Nothing is said of density, enhancement, necrosis, stones or the collecting system, which a label map does not show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medvl.imaging.painted.masks import KidneyFacts, Lesion
from medvl.imaging.phantom import wording as say
from medvl.imaging.phantom.truth import Side
from medvl.imaging.phantom.voice import Voice, join

_BEYOND_A_MASK = ("Bosniak", "enhanc", "benign", "attenuation", "density")
_CYSTS = {2: "two", 3: "three", 4: "four", 5: "five"}
IMPRESSION = ("{size} mass of the {side} kidney.", "{side} renal mass, {size}.", "Known {side} renal mass, now {size}.")
IMPRESSION_CYST = ("{side} renal cyst.", "Cyst in the {side} kidney ({size}).", "Simple cyst of the {side} kidney.")


def write_report(kidneys: Mapping[Side, KidneyFacts], rng: np.random.Generator) -> str:
    """Findings and impression on the kidneys there are.

    Args:
        kidneys: from `read_kidneys`; sizes are said to the millimetre.
        rng: the only source of variety.
    """
    voice = Voice(rng, centimetres=bool(rng.random() < 0.5))
    sides = voice.shuffled(sorted(kidneys))
    findings = [sentence for side in sides for sentence in _kidney(voice, kidneys[side])]
    impression = [line for side in sides for line in _impression(voice, kidneys[side])]
    style = int(rng.integers(len(say.HEADERS["findings"])))
    parts = {"findings": findings, "impression": impression or ["No renal mass."]}
    return "\n".join(f"{say.HEADERS[name][style]}\n{' '.join(lines)}" for name, lines in parts.items()) + "\n"


def _kidney(voice: Voice, kidney: KidneyFacts) -> list[str]:
    name = f"{kidney.side} kidney"
    said = [_mass(voice, kidney.side, lesion) for lesion in kidney.tumours]
    if kidney.cysts:
        said.append(_cysts(voice, kidney))
    absent = [word for word, found in (("mass", kidney.tumours), ("cyst", kidney.cysts)) if not found and voice.chance(0.9)]
    if absent:
        items = join([voice.pick(say.ABSENT_ITEM[word]) for word in voice.shuffled(absent)])
        said.append([voice.write(say.ABSENT_LIST, kidney=name, items=items)])
    length = [voice.write(say.LENGTH, kidney=name, size=voice.length(kidney.length_mm))] if voice.chance(0.9) else []
    return length + [sentence for group in said for sentence in group]


def _mass(voice: Voice, side: Side, lesion: Lesion) -> list[str]:
    slots = {"size": voice.length(lesion.size_mm), "adj": "", "loc": voice.locate(side, lesion.pole)}
    return [voice.write(say.MASS_OPEN, **slots), voice.pick(say.MASS_DETAIL["exophytic", lesion.exophytic])]


def _cysts(voice: Voice, kidney: KidneyFacts) -> list[str]:
    largest, n = kidney.cysts[0], len(kidney.cysts)
    if n == 1:
        return [
            voice.write(_shown(say.CYST_OPEN), size=voice.length(largest.size_mm), loc=voice.locate(kidney.side, largest.pole))
        ]
    slots = {"kidney": f"{kidney.side} kidney", "place": voice.place(largest.pole)}
    return [voice.write(_shown(say.CYSTS_OPEN), count=_CYSTS.get(n, "multiple"), size=voice.length(largest.size_mm), **slots)]


def _impression(voice: Voice, kidney: KidneyFacts) -> list[str]:
    lines = [voice.write(IMPRESSION, side=kidney.side, size=voice.length(kidney.tumours[0].size_mm))] if kidney.tumours else []
    if kidney.cysts and voice.chance(0.5):
        lines.append(voice.write(IMPRESSION_CYST, side=kidney.side, size=voice.length(kidney.cysts[0].size_mm)))
    return lines


def _shown(templates: Sequence[str]) -> list[str]:
    """Those that claim no more than an outline."""
    return [text for text in templates if not any(word in text for word in _BEYOND_A_MASK)]
