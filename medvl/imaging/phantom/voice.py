"""One reader's voice: how a phantom report picks words, writes lengths and misreads them a little."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from medvl.imaging.phantom.truth import Pole

T = TypeVar("T")
POLES: dict[Pole, tuple[str, ...]] = {
    "upper": ("upper pole", "upper pole", "superior pole", "upper third"),
    "interpolar": ("interpolar region", "mid pole", "interpolar region", "middle third"),
    "lower": ("lower pole", "lower pole", "inferior pole", "lower third"),
}


@dataclass(frozen=True)
class Voice:
    """One reader: the random generator, how lengths are written, and small measuring errors fixed for the report."""

    rng: np.random.Generator
    centimetres: bool

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def pick(self, options: Sequence[str]) -> str:
        """One of the options."""
        return options[int(self.rng.integers(len(options)))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in a new order."""
        return [items[int(k)] for k in self.rng.permutation(len(items))]

    def write(self, options: Sequence[str], **slots: str) -> str:
        """One of the templates with its slots filled, capital first letter and a fitting article."""
        return _polish(self.pick(options).format(**slots))

    def length(self, mm: int) -> str:
        """`mm` as "23 mm" or "2.3 cm"."""
        in_cm = self.centimetres if mm >= 10 else False
        if self.chance(0.15) and mm >= 10:
            in_cm = not in_cm
        return f"{mm / 10:.1f} cm" if in_cm else f"{mm} mm"

    def extent(self, mm: int) -> str:
        """One, two or three diameters, the largest first."""
        n = int(self.rng.choice([1, 2, 3], p=[0.5, 0.38, 0.12]))
        sizes = [mm, *(max(1, round(mm * f)) for f in sorted(self.rng.uniform(0.8, 0.97, n - 1), reverse=True))]
        if self.centimetres and mm >= 10:
            return " x ".join(f"{s / 10:.1f}" for s in sizes) + " cm"
        return " x ".join(str(s) for s in sizes) + " mm"

    def read_mm(self, true_mm: float, cut: float | None = None) -> int:
        """A reader's whole millimetres, at most 5 % off and on the true side of `cut`."""
        read = max(1, round(true_mm * (1 + float(np.clip(self.rng.normal(0, 0.015), -0.05, 0.05)))))
        if cut is None:
            return read
        return max(read, int(np.ceil(cut))) if true_mm >= cut else min(read, int(np.ceil(cut)) - 1)

    def place(self, pole: Pole) -> str:
        """The pole in words, with its article."""
        return "the " + self.pick(POLES[pole])

    def locate(self, side: str, pole: Pole) -> str:
        """Where in which kidney."""
        zone = self.pick(POLES[pole])
        return self.pick(
            (
                f"the {zone} of the {side} kidney",
                f"the {zone} of the {side} kidney",
                f"the {side} renal {zone}",
                f"the {side} kidney ({zone})",
            )
        )


def _polish(text: str) -> str:
    text = re.sub(r"\b([Aa]) (?=[aeioAEIO]|8|11 |18 )", r"\1n ", re.sub(r"  +", " ", text)).strip()
    return text[:1].upper() + text[1:]


def join(items: Sequence[str]) -> str:
    """Items as in `a, b or c`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " or " + items[-1]
