"""A radiology report of a phantom patient: true, visible in the scan's coverage and phase, and differently worded each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medvl.imaging.phantom import wording as say
from medvl.imaging.phantom import wording_trunk as trunk
from medvl.imaging.phantom.report_trunk import chest_impression, chest_sentences, other_organs, read_chest
from medvl.imaging.phantom.truth import Cyst, Kidney, Mass, Patient, Stone
from medvl.imaging.phantom.voice import POLES, Voice, join

_COUNTS = {2: "two", 3: "three", 4: "four", 5: "five"}
_OneMany = tuple[Sequence[str], Sequence[str]]
_ENHANCING = ("arterial", "portal_venous")


def _mass_attributes(mass: Mass, phase: str) -> list[tuple[str, bool]]:
    attributes = [("exophytic", mass.exophytic), ("calcification", mass.calcification)]
    if phase != "noncontrast":
        attributes.append(("necrosis", mass.necrosis))
    if phase in _ENHANCING:
        attributes.append(("avid", mass.enhancement == "avid"))
    return attributes


def _mass(voice: Voice, side: str, mass: Mass, phase: str, size_mm: int) -> list[str]:
    """The opening sentence and, right after it, the details that refer to it."""
    adjectives: list[str] = []
    tails: list[str] = []
    details: list[str] = []
    if voice.chance(0.85):
        adjectives.append(voice.pick(say.COMPOSITION[mass.composition]))
    else:
        details.append(f"It is {voice.pick(say.COMPOSITION[mass.composition])}.")
    for name, present in voice.shuffled(_mass_attributes(mass, phase)):
        if (name, present) in say.MASS_WITH and voice.chance(0.3) and len(adjectives) + len(tails) < 3:
            phrase = voice.pick(say.MASS_WITH[name, present])
            (tails if phrase.startswith(("with", "containing")) else adjectives).append(phrase)
        elif voice.chance(0.95 if present or name in ("exophytic", "avid") else 0.65):
            details.append(voice.pick(say.MASS_DETAIL[name, present]))
    if mass.composition == "cystic" and phase in _ENHANCING and voice.chance(0.5):
        details.append(voice.pick(say.CYSTIC_DETAIL))
    adjective = ", ".join(voice.shuffled(adjectives)) + " " if adjectives else ""
    opening = voice.write(say.MASS_OPEN, size=voice.extent(size_mm), adj=adjective, loc=voice.locate(side, mass.pole))
    if tails:
        opening = f"{opening[:-1]}, {' and '.join(tails)}."
    return [opening, *voice.shuffled(details)]


def _many(voice: Voice, side: str, items: Sequence[Cyst | Stone], sizes: Sequence[int], templates: _OneMany) -> list[str]:
    """Each cyst or stone alone, or their count and the largest."""
    if len(items) > 1 and voice.chance(0.6):
        largest = int(np.argmax(sizes))
        slots = {"kidney": f"{side} kidney", "size": voice.length(sizes[largest]), "place": voice.place(items[largest].pole)}
        return [voice.write(templates[1], count=_COUNTS.get(len(items), "multiple"), **slots)]
    return [
        voice.write(
            templates[0], size=voice.length(mm) if voice.chance(0.7) else voice.extent(mm), loc=voice.locate(side, item.pole)
        )
        for item, mm in zip(items, sizes, strict=True)
    ]


def _absent(kidney: Kidney) -> set[str]:
    found = {"mass": kidney.mass, "cyst": kidney.cysts, "stone": kidney.stones}
    return {name for name, value in found.items() if not value} | (
        {"hydronephrosis"} if kidney.hydronephrosis == "none" else set()
    )


def _negatives(voice: Voice, kidney_name: str, absent: Sequence[str], both: bool) -> list[str]:
    """Pertinent negatives as lists or single sentences; some are left out."""
    kept = [name for name in voice.shuffled(absent) if voice.chance(0.5 if name == "cyst" else 0.85)]
    if not kept:
        return []
    if not both and len(kept) <= 2 and voice.chance(0.5):
        return [voice.write(say.ABSENT_ONE[name], kidney=kidney_name) for name in kept]
    items = join([voice.pick(say.ABSENT_ITEM[name]) for name in kept])
    return [voice.write(say.ABSENT_BOTH if both else say.ABSENT_LIST, kidney=kidney_name, items=items)]


@dataclass(frozen=True)
class Sizes:
    """What the reader measured in one kidney, in whole mm."""

    length: int
    mass: int
    cysts: tuple[int, ...]
    stones: tuple[int, ...]


def measure(voice: Voice, kidney: Kidney) -> Sizes:
    """What the reader measures in one kidney."""
    mass = voice.read_mm(kidney.mass.size_mm, 40.0) if kidney.mass else 0
    cysts = tuple(voice.read_mm(c.size_mm) for c in kidney.cysts)
    return Sizes(voice.read_mm(kidney.length_mm), mass, cysts, tuple(voice.read_mm(s.size_mm) for s in kidney.stones))


def _positives(voice: Voice, kidney: Kidney, sizes: Sizes, phase: str) -> list[list[str]]:
    """Groups of sentences, one group a finding; order within a group matters."""
    name = f"{kidney.side} kidney"
    groups = []
    if kidney.mass:
        groups.append(_mass(voice, kidney.side, kidney.mass, phase, sizes.mass))
    if kidney.cysts:
        single = [template for template in say.CYST_OPEN if phase != "noncontrast" or "enhancing" not in template]
        groups.append(_many(voice, kidney.side, kidney.cysts, sizes.cysts, (single, say.CYSTS_OPEN)))
    if kidney.stones:
        groups.append(_many(voice, kidney.side, kidney.stones, sizes.stones, (say.STONE_OPEN, say.STONES_OPEN)))
    if kidney.hydronephrosis != "none":
        grade = kidney.hydronephrosis
        slots = {"grade": voice.pick(say.GRADE_WORDS[grade]), "gradely": voice.pick(say.GRADELY[grade])}
        groups.append([voice.write(say.HYDRO_OPEN, kidney=name, **slots)])
    return voice.shuffled(groups)


def _kidney_paragraphs(voice: Voice, patient: Patient, sizes: dict[str, Sizes], headed: bool) -> list[tuple[str, list[str]]]:
    """(sub-header, sentences) for the kidneys: one each, or both together."""
    kidneys = voice.shuffled([patient.kidney_right, patient.kidney_left])
    absent = {k.side: _absent(k) for k in kidneys}
    shared = set.intersection(*absent.values()) if not headed and voice.chance(0.7) else set()
    blocks: dict[str, list[str]] = {}
    for kidney in kidneys:
        name = f"{kidney.side} kidney"
        groups = _positives(voice, kidney, sizes[kidney.side], patient.scanner.phase)
        if not groups and voice.chance(0.45) and not shared:
            groups = [[voice.write(say.NORMAL_KIDNEY, kidney=name)]]
        else:
            groups += [_negatives(voice, name, sorted(absent[kidney.side] - shared), both=False)]
        if headed and voice.chance(0.9):
            groups.insert(0, [voice.write(say.LENGTH, kidney=name, size=voice.length(sizes[kidney.side].length))])
        blocks[kidney.side] = [sentence for group in groups for sentence in group]
    if headed:
        return [(f"{side.capitalize()} kidney", sentences) for side, sentences in blocks.items() if sentences]
    sentences = [sentence for block in blocks.values() for sentence in block]
    if len(shared) == 4 and voice.chance(0.6):
        sentences.append(voice.write(say.NORMAL_BOTH))
    elif shared:
        sentences += _negatives(voice, "kidneys", sorted(shared), both=True)
    return [("Kidneys", _kidney_lengths(voice, sizes) + sentences)]


def _kidney_lengths(voice: Voice, sizes: dict[str, Sizes]) -> list[str]:
    if not voice.chance(0.9):
        return []
    right, left = (voice.length(sizes[side].length) for side in ("right", "left"))
    if voice.chance(0.5):
        return [voice.write(say.LENGTH_BOTH, right=right, left=left)]
    return [voice.write(say.LENGTH, kidney="right kidney", size=right), voice.write(say.LENGTH, kidney="left kidney", size=left)]


def _kidney_impression(voice: Voice, kidney: Kidney, sizes: Sizes) -> list[str]:
    side, lines = kidney.side, []
    if kidney.mass:
        adjective = f"{voice.pick(say.COMPOSITION[kidney.mass.composition])} " if voice.chance(0.6) else ""
        slots = {"adj": adjective, "size": voice.length(sizes.mass), "pole": voice.pick(POLES[kidney.mass.pole])}
        lines.append(voice.write(say.IMPRESSION_MASS, loc=voice.locate(side, kidney.mass.pole), side=side, **slots))
    if kidney.hydronephrosis != "none":
        grade = voice.pick(say.GRADE_WORDS[kidney.hydronephrosis])
        lines.append(voice.write(say.IMPRESSION_HYDRO, side=side, grade=grade))
    if kidney.stones:
        lines.append(voice.write(say.IMPRESSION_STONE, side=side, size=voice.length(max(sizes.stones))))
    if kidney.cysts and voice.chance(0.7):
        lines.append(voice.write(say.IMPRESSION_CYST, side=side, size=voice.length(max(sizes.cysts))))
    return lines


def _abdomen_impression(voice: Voice, patient: Patient, sizes: dict[str, Sizes]) -> list[str]:
    per_kidney = {k.side: _kidney_impression(voice, k, sizes[k.side]) for k in (patient.kidney_right, patient.kidney_left)}
    lines = [line for found in per_kidney.values() for line in found]
    absent = {k.side: _absent(k) for k in (patient.kidney_left, patient.kidney_right)}
    if all(len(names) == 4 for names in absent.values()):
        lines.append(voice.write(say.IMPRESSION_NORMAL_BOTH))
    else:
        for side, names in absent.items():
            if len(names) == 4 and voice.chance(0.4):
                lines.append(voice.write(say.IMPRESSION_NORMAL, kidney=f"{side} kidney", side=side))
    if patient.fatty_liver:
        lines.append(voice.write(trunk.IMPRESSION_FATTY))
    return lines


def _technique(voice: Voice, patient: Patient) -> str:
    scanner = patient.scanner
    thickness = f"{scanner.thickness_mm:g} mm"
    slices = voice.pick(
        (f"slice thickness {thickness}", f"{thickness} axial slices", f"reconstructed at {thickness}", f"{thickness} sections")
    )
    return f"{voice.pick(say.COVERAGE[scanner.coverage])}, {voice.pick(say.PHASE[scanner.phase])}, {slices}."


def _lay_out(voice: Voice, paragraphs: Sequence[tuple[str, list[str]]], headed: bool) -> str:
    if headed:
        upper = voice.chance(0.3)
        return "\n".join(
            f"{name.upper() if upper else name}: {' '.join(sentences)}" for name, sentences in paragraphs if sentences
        )
    joint = voice.pick(("\n", " "))
    return joint.join(" ".join(sentences) for _, sentences in paragraphs if sentences)


def write_report(patient: Patient, rng: np.random.Generator) -> str:
    """A CT report with technique, findings and impression.

    Only what the scan's coverage reaches and its phase shows is stated; lengths are whole millimetres, at most 5 % off the
    truth and on the true side of the cuts that define a large mass and an aneurysm. Pertinent negatives are sometimes left out.

    Args:
        patient: the truth.
        rng: the only source of variety; the same state gives the same report.

    Returns:
        Text with newlines, free of patient names and dates.
    """
    voice = Voice(rng, centimetres=bool(rng.random() < 0.5))
    coverage, headed = patient.scanner.coverage, voice.chance(0.5)
    paragraphs: list[tuple[str, list[str]]] = []
    impression: list[str] = []
    if coverage != "chest":
        sizes: dict[str, Sizes] = {k.side: measure(voice, k) for k in (patient.kidney_left, patient.kidney_right)}
        organs = other_organs(voice, patient)
        kidneys = _kidney_paragraphs(voice, patient, sizes, headed and voice.chance(0.7))
        paragraphs += [*kidneys, *organs] if voice.chance(0.5) else [*organs, *kidneys]
        impression += _abdomen_impression(voice, patient, sizes)
    if coverage != "abdomen":
        read = read_chest(voice, patient)
        chest = [("Chest", chest_sentences(voice, patient, read))]
        paragraphs = [*paragraphs, *chest] if voice.chance(0.4) else [*chest, *paragraphs]
        impression += chest_impression(voice, patient, read)
    impression = voice.shuffled(impression) or ["No acute abnormality."]
    numbered = len(impression) > 1 and voice.chance(0.5)
    last = "\n".join(f"{k}. {line}" for k, line in enumerate(impression, 1)) if numbered else " ".join(impression)
    bodies = {"technique": _technique(voice, patient), "findings": _lay_out(voice, paragraphs, headed), "impression": last}
    style = int(rng.integers(6))
    gap = voice.pick(("\n", " ")) if say.HEADERS["findings"][style].endswith(":") else "\n"
    return "\n".join(f"{say.HEADERS[name][style]}{gap}{body}" for name, body in bodies.items()) + "\n"
