"""A radiology report in the voice of another hospital: other phrases, abbreviations, headings, order; the same truth.

As in `report.py`, only what the scan's coverage reaches and its phase shows is stated, every present finding is, and lengths are
at most 5 % or the rounding off, on the true side of the cuts. A clinical question before the scan may name findings that are not
there, as it does in life, and some reports are a conclusion alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvl.imaging.phantom.other_style import Style
from medvl.imaging.phantom.other_trunk import chest_end, chest_lines
from medvl.imaging.phantom.other_voice import OtherVoice
from medvl.imaging.phantom.report import Sizes, measure
from medvl.imaging.phantom.report_trunk import read_chest
from medvl.imaging.phantom.truth import Cyst, Kidney, Mass, Patient, Stone
from medvl.imaging.phantom.voice import join

_COUNTS = {2: "two", 3: "three", 4: "four", 5: "five"}
_ENHANCING = ("arterial", "portal_venous")
_ABSENT = ("mass", "cyst", "stone", "hydronephrosis")


def write_other(patient: Patient, rng: np.random.Generator, style: Style) -> str:
    """The patient's report in a style; the same state of `rng` gives the same report."""
    voice = OtherVoice(rng, bool(rng.random() < style.centimetres), style=style, headed=bool(rng.random() < style.headed))
    coverage = patient.scanner.coverage
    findings: list[str] = []
    end: list[str] = []
    if coverage != "chest":
        sizes: dict[str, Sizes] = {k.side: measure(voice, k) for k in (patient.kidney_left, patient.kidney_right)}
        findings += _kidneys(voice, patient, sizes)
        end += _kidneys_end(voice, patient, sizes)
        findings.append(_block(voice, "other", _others(voice, patient)))
    if coverage != "abdomen":
        read = read_chest(voice, patient)
        chest = _block(voice, "chest", chest_lines(voice, patient, read))
        findings = [chest, *findings] if voice.chance(0.5) else [*findings, chest]
        end += chest_end(voice, patient, read)
    end = end or [voice.say("end_nothing")]
    bodies = {
        "examination": _examination(voice, patient),
        "history": voice.say("history"),
        "findings": "\n".join(line for line in findings if line),
        "impression": "\n".join(f"{n}. {line}" for n, line in enumerate(end, 1)) if voice.chance(0.4) else " ".join(end),
    }
    order = style.orders[int(rng.integers(len(style.orders)))]
    if voice.chance(style.impression_only):
        order = ("impression",) if voice.chance(0.5) else ("examination", "impression")
    headers = style.headers[int(rng.integers(len(style.headers)))]
    gap = voice.pick(("\n", " ")) if headers["findings"].endswith(":") else "\n"
    return "\n".join(f"{headers[name]}{gap}{bodies[name]}" for name in order) + "\n"


def _examination(voice: OtherVoice, patient: Patient) -> str:
    scanner, style = patient.scanner, voice.style
    scan, timing = voice.pick(style.scans[scanner.coverage]), voice.pick(style.timings[scanner.phase])
    return voice.say("examination", scan=scan, timing=timing, slices=f"{scanner.thickness_mm:g} mm sections")


def _block(voice: OtherVoice, key: str, sentences: Sequence[str]) -> str:
    text = " ".join(sentences)
    return f"{voice.pick(voice.style.blocks[key])} {text}" if text and voice.headed else text


def _others(voice: OtherVoice, patient: Patient) -> list[str]:
    said = voice.shuffled(voice.style.say["other"])[: int(voice.rng.integers(0, 4))]
    return [voice.say("fatty"), *said] if patient.fatty_liver else said


def _kidneys(voice: OtherVoice, patient: Patient, sizes: dict[str, Sizes]) -> list[str]:
    """A line for each kidney under its heading, or one for both."""
    kidneys = voice.shuffled([patient.kidney_right, patient.kidney_left])
    phase = patient.scanner.phase
    if voice.headed:
        lines = []
        for kidney in kidneys:
            slots = {"side": voice.side(kidney.side), "short": voice.style.short[kidney.side]}
            length = [voice.say("length", size=voice.length(sizes[kidney.side].length))] if voice.chance(0.8) else []
            lines.append(
                " ".join([voice.say("kidney_head", **slots), *length, *_kidney(voice, kidney, sizes[kidney.side], phase)])
            )
        return lines
    shared = set.intersection(*(absent_of(k) for k in kidneys)) if voice.chance(0.7) else set()
    said = [s for k in kidneys for s in _kidney(voice, k, sizes[k.side], phase, shared)]
    if shared:
        said += _negatives(voice, shared, "absent_both")
    if voice.chance(0.7):
        said.insert(0, voice.say("lengths", **{side: voice.length(sizes[side].length) for side in ("left", "right")}))
    return [" ".join(said)]


def absent_of(kidney: Kidney) -> set[str]:
    """Which of mass, cyst, stone and hydronephrosis a kidney is without."""
    found = {"mass": kidney.mass, "cyst": kidney.cysts, "stone": kidney.stones}
    return {name for name, value in found.items() if not value} | (
        {"hydronephrosis"} if kidney.hydronephrosis == "none" else set()
    )


def _kidney(
    voice: OtherVoice,
    kidney: Kidney,
    sizes: Sizes,
    phase: str,
    shared: set[str] | frozenset[str] = frozenset(),
) -> list[str]:
    """What is in a kidney, then what is not, as far as that is not said of both."""
    groups: list[list[str]] = []
    if kidney.mass:
        groups.append(_mass(voice, kidney.side, kidney.mass, phase, sizes.mass))
    for key, items, mm in (("cyst", kidney.cysts, sizes.cysts), ("stone", kidney.stones, sizes.stones)):
        if items:
            groups.append(_many(voice, kidney.side, key, items, mm))
    if kidney.hydronephrosis != "none":
        style, grade = voice.style, kidney.hydronephrosis
        slots = {"grade": voice.pick(style.grades[grade]), "gradely": voice.pick(style.gradely[grade])}
        groups.append([voice.on_side(kidney.side, voice.say("hydro", **slots))])
    if not groups and not shared and voice.chance(0.5):
        if voice.headed:
            return [voice.say("normal_kidney")]
        return [voice.say("normal_side", side=voice.side(kidney.side), short=voice.style.short[kidney.side])]
    negatives = [voice.on_side(kidney.side, line) for line in _negatives(voice, absent_of(kidney) - shared, "absent")]
    return [sentence for group in voice.shuffled(groups) for sentence in group] + negatives


def _negatives(voice: OtherVoice, absent: set[str] | frozenset[str], key: str) -> list[str]:
    kept = [name for name in voice.shuffled(sorted(absent)) if voice.chance(0.5 if name == "cyst" else 0.85)]
    return [voice.say(key, items=join([voice.pick(voice.style.say[f"absent_{name}"]) for name in kept]))] if kept else []


def _mass(voice: OtherVoice, side: str, mass: Mass, phase: str, mm: int) -> list[str]:
    """The mass with the traits that it has, then sentences on those that it has not."""
    traits = ["exophytic" if mass.exophytic else "endophytic"]
    traits += ["calcification"] if mass.calcification else []
    if phase != "noncontrast" and mass.necrosis:
        traits.append("necrosis")
    if phase in _ENHANCING:
        traits.append("avid" if mass.enhancement == "avid" else "mild")
    kept = [voice.pick(voice.style.say[name]) for name in voice.shuffled(traits) if voice.chance(0.92)]
    first, last = voice.style.joints
    with_ = f"{first}{', '.join(kept[:-1])}{last if kept[:-1] else ''}{kept[-1]}" if kept else ""
    comp = voice.composition(mass, phase in _ENHANCING)
    size = voice.extent(mm) if voice.chance(0.4) else voice.length(mm)
    said = [voice.say("mass", loc=voice.at(side, mass.pole), comp=comp, size=size, with_=with_)]
    if phase != "noncontrast" and not mass.necrosis and voice.chance(0.6):
        said.append(voice.say("no_necrosis"))
    if not mass.calcification and voice.chance(0.6):
        said.append(voice.say("no_calcification"))
    return said


def _many(voice: OtherVoice, side: str, key: str, items: Sequence[Cyst | Stone], mm: Sequence[int]) -> list[str]:
    """Each cyst or stone alone, or their number and the largest."""
    if len(items) > 1 and voice.chance(0.6):
        largest = int(np.argmax(mm))
        place = voice.at(side, items[largest].pole)
        return [voice.say(f"{key}s", count=_COUNTS[len(items)], size=voice.length(mm[largest]), loc=place)]
    return [voice.say(key, size=voice.length(n), loc=voice.at(side, item.pole)) for item, n in zip(items, mm, strict=True)]


def _kidneys_end(voice: OtherVoice, patient: Patient, sizes: dict[str, Sizes]) -> list[str]:
    """The conclusion on both kidneys; every finding is in it."""
    style, lines = voice.style, []
    for kidney in (patient.kidney_right, patient.kidney_left):
        read = sizes[kidney.side]
        if kidney.mass:
            slots = {"comp": voice.composition(kidney.mass, False), "pole": voice.pick(style.poles[kidney.mass.pole])}
            lines.append(voice.say("end_mass", side=voice.side(kidney.side), size=voice.length(read.mass), **slots))
        if kidney.hydronephrosis != "none":
            grade = voice.pick(style.grades[kidney.hydronephrosis])
            lines.append(voice.say("end_hydro", side=voice.side(kidney.side), grade=grade))
        for key, mm in (("stone", read.stones), ("cyst", read.cysts)):
            if mm:
                lines.append(voice.say(f"end_{key}", side=voice.side(kidney.side), size=voice.length(max(mm))))
    if all(absent_of(k) == set(_ABSENT) for k in (patient.kidney_left, patient.kidney_right)):
        lines.append(voice.say("end_normal"))
    return lines
