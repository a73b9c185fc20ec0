"""The chest in the voice of another hospital."""

from __future__ import annotations

from medvl.imaging.phantom.other_voice import OtherVoice
from medvl.imaging.phantom.truth import Patient


def chest_lines(voice: OtherVoice, patient: Patient, read: dict[str, int]) -> list[str]:
    """Heart, aorta, pericardium and pleura, in any order; every finding, and most of what is normal."""
    chest, style, groups = patient.chest, voice.style, []
    slots = {"ratio": f"{chest.cardiothoracic_ratio:.2f}", "width": voice.length(read["heart"])}
    if chest.cardiomegaly or voice.chance(0.9):
        groups.append([voice.say("cardiomegaly" if chest.cardiomegaly else "no_cardiomegaly", **slots)])
    grade = chest.coronary_calcification
    if grade != "none":
        words = {"grade": voice.pick(style.grades[grade]), "gradely": voice.pick(style.gradely[grade])}
        groups.append([voice.say("coronary", **words)])
    elif voice.chance(0.8):
        groups.append([voice.say("no_coronary")])
    if chest.pericardial_effusion_mm > 0:
        groups.append([voice.say("pericardial", size=voice.length(read["pericardial"]))])
    elif voice.chance(0.85):
        groups.append([voice.say("no_pericardial")])
    if chest.aneurysm or voice.chance(0.9):
        groups.append([voice.say("aneurysm" if chest.aneurysm else "no_aneurysm", size=voice.length(read["aorta"]))])
    groups.append(_effusions(voice, read["left"], read["right"]))
    return [sentence for group in voice.shuffled(groups) for sentence in group]


def _amount(voice: OtherVoice, mm: int) -> str:
    return voice.style.amounts[(mm >= 20) + (mm >= 45)]


def _effusions(voice: OtherVoice, left_mm: int, right_mm: int) -> list[str]:
    if not left_mm and not right_mm:
        return [voice.say("no_effusion")] if voice.chance(0.9) else []
    if left_mm and right_mm and voice.chance(0.5):
        return [voice.say("effusions", left=voice.length(left_mm), right=voice.length(right_mm))]
    told = [(side, mm) for side, mm in (("left", left_mm), ("right", right_mm)) if mm]
    return [voice.say("effusion", side=voice.side(s), size=voice.length(mm), amount=_amount(voice, mm)) for s, mm in told]


def chest_end(voice: OtherVoice, patient: Patient, read: dict[str, int]) -> list[str]:
    """The conclusion on the chest; every finding is in it."""
    chest, lines = patient.chest, []
    if chest.cardiomegaly:
        lines.append(voice.say("end_cardiomegaly"))
    if chest.coronary_calcification != "none":
        lines.append(voice.say("end_coronary", grade=voice.pick(voice.style.grades[chest.coronary_calcification])))
    if chest.pericardial_effusion_mm > 0:
        lines.append(voice.say("end_pericardial", size=voice.length(read["pericardial"])))
    if chest.aneurysm:
        lines.append(voice.say("end_aneurysm", size=voice.length(read["aorta"])))
    if read["left"] and read["right"]:
        return [*lines, voice.say("end_effusions")]
    for side in ("left", "right"):
        if read[side]:
            lines.append(voice.say("end_effusion", side=voice.side(side), amount=_amount(voice, read[side])))
    return lines
