"""The parts of a phantom report beside the kidneys: chest, liver, spleen and filler."""

from __future__ import annotations

from medvl.imaging.phantom import wording_trunk as say
from medvl.imaging.phantom.truth import Patient
from medvl.imaging.phantom.voice import Voice


def _read_fluid(voice: Voice, mm: float) -> int:
    return voice.read_mm(mm) if mm > 0 else 0


def _effusions(voice: Voice, left_mm: int, right_mm: int) -> list[str]:
    if not left_mm and not right_mm:
        return [voice.write(say.NO_EFFUSION)] if voice.chance(0.9) else []
    if left_mm and right_mm and voice.chance(0.5):
        return [voice.write(say.EFFUSION_BOTH, left=voice.length(left_mm), right=voice.length(right_mm))]
    sentences = []
    for side, mm in voice.shuffled([("left", left_mm), ("right", right_mm)]):
        if mm:
            sentences.append(voice.write(say.EFFUSION, side=side, size=voice.length(mm), amount=_amount(mm)))
        elif voice.chance(0.7):
            sentences.append(voice.write(say.NO_EFFUSION_SIDE, side=side))
    return sentences


def _amount(mm: int) -> str:
    return "small" if mm < 20 else "moderate" if mm < 45 else "large"


def chest_sentences(voice: Voice, patient: Patient, read: dict[str, int]) -> list[str]:
    """Heart, aorta, pericardium, pleura and lungs, in any order."""
    chest, groups = patient.chest, []
    slots = {"ratio": f"{chest.cardiothoracic_ratio:.2f}", "width": voice.length(read["heart"])}
    if chest.cardiomegaly or voice.chance(0.9):
        groups.append([voice.write(say.CARDIOMEGALY if chest.cardiomegaly else say.NO_CARDIOMEGALY, **slots)])
    grade = chest.coronary_calcification
    if grade != "none":
        words = {"grade": voice.pick(say.CORONARY_GRADE[grade]), "gradely": voice.pick(say.CORONARY_GRADELY[grade])}
        groups.append([voice.write(say.CORONARY, **words)])
    elif voice.chance(0.8):
        groups.append([voice.write(say.NO_CORONARY)])
    if chest.pericardial_effusion_mm > 0:
        groups.append([voice.write(say.PERICARDIAL, size=voice.length(read["pericardial"]))])
    elif voice.chance(0.85):
        groups.append([voice.write(say.NO_PERICARDIAL)])
    if chest.aneurysm or voice.chance(0.92):
        groups.append([voice.write(say.ANEURYSM if chest.aneurysm else say.NO_ANEURYSM, size=voice.length(read["aorta"]))])
    groups.append(_effusions(voice, read["left"], read["right"]))
    if voice.chance(0.6):
        groups.append([voice.write(say.LUNGS)])
    return [sentence for group in voice.shuffled(groups) for sentence in group]


def read_chest(voice: Voice, patient: Patient) -> dict[str, int]:
    """What the reader measured in the chest, in whole mm: heart, aorta, pericardial, left and right fluid (0 for none)."""
    chest = patient.chest
    return {
        "heart": voice.read_mm(chest.heart_width_mm),
        "aorta": voice.read_mm(chest.ascending_aorta_mm, 45.0),
        "pericardial": _read_fluid(voice, chest.pericardial_effusion_mm),
        "left": _read_fluid(voice, chest.effusion_left_mm),
        "right": _read_fluid(voice, chest.effusion_right_mm),
    }


def other_organs(voice: Voice, patient: Patient) -> list[tuple[str, list[str]]]:
    """(sub-header, sentences) for liver, spleen and a few unrelated remarks."""
    liver = [voice.write(say.LIVER, size=voice.length(voice.read_mm(patient.liver_mm)))] if voice.chance(0.85) else []
    if patient.fatty_liver or voice.chance(0.7):
        liver.append(voice.write(say.FATTY if patient.fatty_liver else say.NOT_FATTY))
    spleen = [voice.write(say.SPLEEN, size=voice.length(voice.read_mm(patient.spleen_mm)))] if voice.chance(0.85) else []
    other = voice.shuffled(say.OTHER)[: int(voice.rng.integers(0, 4))]
    return [item for item in (("Liver", liver), ("Spleen", spleen), ("Other", other)) if item[1]]


def chest_impression(voice: Voice, patient: Patient, read: dict[str, int]) -> list[str]:
    """Main findings of the chest, or a normal statement, or nothing."""
    chest, lines = patient.chest, []
    if chest.cardiomegaly:
        lines.append(voice.write(say.IMPRESSION_CARDIOMEGALY))
    if chest.coronary_calcification != "none":
        grade = voice.pick(say.CORONARY_GRADE[chest.coronary_calcification])
        lines.append(voice.write(say.IMPRESSION_CORONARY, grade=grade))
    if chest.pericardial_effusion_mm > 0:
        lines.append(voice.write(say.IMPRESSION_PERICARDIAL, size=voice.length(read["pericardial"])))
    if chest.aneurysm:
        lines.append(voice.write(say.IMPRESSION_ANEURYSM, size=voice.length(read["aorta"])))
    if read["left"] and read["right"]:
        lines.append(voice.write(say.IMPRESSION_EFFUSION_BOTH))
    else:
        for side in ("left", "right"):
            if read[side]:
                lines.append(voice.write(say.IMPRESSION_EFFUSION, side=side, amount=_amount(read[side])))
    return lines or ([voice.write(say.IMPRESSION_CHEST[:1])] if voice.chance(0.6) else [])
