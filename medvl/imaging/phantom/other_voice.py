"""A reader of another hospital: picks phrases of a style and fills them, with the same small misreadings as the demo site's."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from medvl.imaging.phantom.other_style import Style
from medvl.imaging.phantom.truth import Mass, Pole
from medvl.imaging.phantom.voice import Voice


@dataclass(frozen=True)
class OtherVoice(Voice):
    """`Voice` with a style; `headed` says whether a heading names the kidney that is spoken of."""

    style: Style = field(kw_only=True)
    headed: bool = field(kw_only=True)

    def say(self, key: str, **slots: str) -> str:
        """One of the style's phrases with its slots filled; a slot whose name has a capital gets one."""
        template = self.pick(self.style.say[key])
        filled = template.format(**slots, **{_capital(k): _capital(v) for k, v in slots.items() if _capital(k) not in slots})
        return _capital(re.sub(r"\b([Aa]) (?=[aeio8]|11 |18 )", r"\1n ", re.sub(r"  +", " ", filled)).strip())

    def length(self, mm: int) -> str:
        """`mm` as "2.3 cm", "2.3cm" or "23 mm"; stones are told in cm too."""
        gap = "" if self.chance(self.style.tight) else " "
        centimetres = self.centimetres != self.chance(0.1)
        return f"{mm / 10:.1f}{gap}cm" if centimetres else f"{mm}{gap}mm"

    def side(self, side: str) -> str:
        """The side in one of its words."""
        return self.pick(self.style.sides[side])

    def at(self, side: str, pole: Pole) -> str:
        """Where; with its side unless a heading has it."""
        zone = self.pick(self.style.poles[pole])
        return self.pick(self.style.headed_places if self.headed else self.style.places).format(pole=zone, side=self.side(side))

    def on_side(self, side: str, sentence: str) -> str:
        """A sentence without a place, told of one kidney; under that kidney's heading as it is."""
        if self.headed:
            return sentence
        text = sentence if sentence[1:2].isupper() or sentence.startswith("I ") else sentence[:1].lower() + sentence[1:]
        return self.say("lead", side=self.side(side), short=self.style.short[side], text=text)

    def composition(self, mass: Mass, enhancing: bool) -> str:
        """Solid or cystic, in one of the style's words."""
        return self.pick(self.style.say[mass.composition if enhancing or mass.composition == "cystic" else "solid_plain"])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
