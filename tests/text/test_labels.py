"""Attributes from words: hand-written wordings, the prompts, generated reports against their truth, real reports."""

import csv
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import medvl_configs
from medvl.errors import ConfigError
from medvl.imaging.phantom.report import write_report
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.truth import Kidney, Patient
from medvl.text.labels import extract, measures
from medvl.text.ontology import load_ontology
from medvl.text.report import parse_report

WORDINGS: list[tuple[str, str, dict[str, Any]]] = [
    ("A 3 cm mass in the left kidney.", "kidney_left", {"renal_mass": 1, "mass_size_mm": 30.0, "mass_large": 0}),
    ("No left renal mass.", "kidney_left", {"renal_mass": 0, "mass_large": -1, "mass_size_mm": None, "renal_cyst": -1}),
    (
        "Left kidney: 11 cm. No stone, mass or hydronephrosis.",
        "kidney_left",
        {"renal_stone": 0, "renal_mass": 0, "hydronephrosis": 0, "kidney_length_mm": 110.0},
    ),
    (
        "No hydronephrosis of the left kidney, but a 5 mm stone.",
        "kidney_left",
        {"hydronephrosis": 0, "renal_stone": 1, "stone_size_mm": 5.0},
    ),
    ("Hydronephrosis cannot be excluded on the left.", "kidney_left", {"hydronephrosis": 2}),
    ("A lesion of the left kidney may represent a cyst.", "kidney_left", {"renal_cyst": 2, "renal_mass": -1}),
    ("Hypodense nodule of the left kidney (cyst?).", "kidney_left", {"renal_cyst": 2}),
    ("A lesion of the left kidney, which may be compatible with a cyst.", "kidney_left", {"renal_cyst": 2}),
    (
        "A lesion of the left kidney consistent with a cyst of 2 cm.",
        "kidney_left",
        {"renal_cyst": 1, "cyst_size_mm": 20.0, "renal_mass": -1},
    ),
    ("Likely simple cyst in the left kidney, 14 mm.", "kidney_left", {"renal_cyst": 1, "cyst_size_mm": 14.0, "renal_mass": -1}),
    ("A mass in the left kidney is not seen.", "kidney_left", {"renal_mass": 0}),
    ("A 3 cm left renal mass does not enhance avidly.", "kidney_left", {"renal_mass": 1, "mass_avid": 0}),
    ("No change in the left renal mass, now 22 mm.", "kidney_left", {"renal_mass": 1, "mass_size_mm": 22.0}),
    ("No necrosis within the left renal mass.", "kidney_left", {"renal_mass": 1, "mass_necrosis": 0}),
    ("Solid left renal mass with cystic degeneration.", "kidney_left", {"mass_cystic": 0, "mass_necrosis": 1}),
    (
        "Bosniak 2F cystic lesion of the left kidney, 2.5 cm.",
        "kidney_left",
        {"renal_mass": 1, "mass_cystic": 1, "renal_cyst": -1},
    ),
    (
        "The left kidney measures 112 mm, with a mass of 4.1 x 3.9 cm.",
        "kidney_left",
        {"kidney_length_mm": 112.0, "mass_size_mm": 41.0},
    ),
    ("Two stones in the left kidney, the largest 8 mm. A 4 mm stone too.", "kidney_left", {"stone_size_mm": 8.0}),
    ("Severe left hydronephrosis.", "kidney_left", {"hydronephrosis": 1, "hydronephrosis_grade": "severe"}),
    ("The left collecting system is not dilated.", "kidney_left", {"hydronephrosis": 0, "hydronephrosis_grade": None}),
    (
        "The left kidney is unremarkable.",
        "kidney_left",
        {"renal_mass": 0, "renal_cyst": 0, "renal_stone": 0, "hydronephrosis": 0},
    ),
    (
        "The left kidney is normal in size.",
        "kidney_left",
        {"renal_mass": -1, "renal_cyst": -1, "renal_stone": -1, "hydronephrosis": -1},
    ),
    ("The left renal vein is unremarkable.", "kidney_left", {"renal_mass": -1, "renal_stone": -1}),
    ("Gallbladder stones.", "kidney_left", {"renal_stone": -1}),
    ("Mass in the superior pole of the left kidney.", "kidney_left", {"mass_pole": "upper"}),
    ("Small right and moderate left pleural effusions.", "chest", {"pleural_effusion_left": 1, "pleural_effusion_right": 1}),
    ("Right pleural effusion. No left pleural effusion.", "chest", {"pleural_effusion_left": 0, "pleural_effusion_right": 1}),
    (
        "No pericardial or pleural effusion.",
        "chest",
        {"pericardial_effusion": 0, "pleural_effusion_left": 0, "pleural_effusion_right": 0},
    ),
    ("Pericardial effusion.", "chest", {"pericardial_effusion": 1, "pleural_effusion_left": -1}),
    ("Ascending aortic aneurysm of 5.1 cm.", "chest", {"aortic_aneurysm": 1, "aorta_mm": 51.0}),
    ("Infrarenal abdominal aortic aneurysm.", "chest", {"aortic_aneurysm": -1}),
    (
        "Heart not enlarged. Dense calcification of the coronary arteries.",
        "chest",
        {"cardiomegaly": 0, "coronary_calcification": 1, "coronary_grade": "severe"},
    ),
]


@pytest.mark.parametrize(("text", "region", "expected"), WORDINGS, ids=[w[0] for w in WORDINGS])
def test_wordings(text: str, region: str, expected: dict[str, Any]) -> None:
    found = extract(parse_report(text))[region]
    assert {key: found[key] for key in expected} == expected


def test_the_other_kidney_learns_nothing_from_one_sided_words() -> None:
    other = extract(parse_report("A 3 cm exophytic mass in the left kidney. It is calcified."))["kidney_right"]
    assert set(other.values()) == {-1, None}


@pytest.mark.parametrize(
    ("text", "mm"), [("2.3 x 2.1 cm", 23), ("14mm", 14), ("12 mm x 30 mm", 30), ("2,5 cm", 25), ("4-cm", 40), ("35 HU", None)]
)
def test_measures_take_the_largest_diameter_in_mm(text: str, mm: float | None) -> None:
    assert [value for _, _, value in measures(f"A lesion of {text} there")] == ([] if mm is None else [mm])


def test_prompts_say_what_they_are_meant_to_say() -> None:
    """The zero-shot prompts are wordings the rules were not written for; each must read as its own side of the question."""
    findings = yaml.safe_load((Path(medvl_configs.__path__[0]) / "findings" / "phantom.yaml").read_text(encoding="utf-8"))[
        "findings"
    ]
    for finding in findings:
        region = "kidney_left" if finding["region"] == "kidney" else "chest"
        for wanted, kind in ((1, "present"), (0, "absent")):
            assert len(finding[kind]) >= 6
            for template, descriptor in product(finding["templates"], finding[kind]):
                text = template.replace("{}", descriptor).replace("{side}", "left")
                text = text[0].upper() + text[1:]
                assert extract(parse_report(text))[region][finding["truth"]] == wanted, text


def _kidney_truth(kidney: Kidney) -> dict[str, Any]:
    mass = kidney.mass
    return {
        "renal_mass": int(mass is not None),
        "renal_cyst": int(bool(kidney.cysts)),
        "renal_stone": int(bool(kidney.stones)),
        "hydronephrosis": int(kidney.hydronephrosis != "none"),
        "hydronephrosis_grade": None if kidney.hydronephrosis == "none" else kidney.hydronephrosis,
        "kidney_length_mm": kidney.length_mm,
        "cyst_size_mm": max((c.size_mm for c in kidney.cysts), default=None),
        "stone_size_mm": max((s.size_mm for s in kidney.stones), default=None),
        "mass_size_mm": mass and mass.size_mm,
        "mass_pole": mass and mass.pole,
        "mass_large": mass and int(mass.size_mm >= 40),
        "mass_cystic": mass and int(mass.composition == "cystic"),
        "mass_exophytic": mass and int(mass.exophytic),
        "mass_necrosis": mass and int(mass.necrosis),
        "mass_calcification": mass and int(mass.calcification),
        "mass_avid": mass and int(mass.enhancement == "avid"),
    }


def _truth(patient: Patient) -> dict[str, dict[str, Any]]:
    chest = patient.chest
    return {
        "kidney_left": _kidney_truth(patient.kidney_left),
        "kidney_right": _kidney_truth(patient.kidney_right),
        "chest": {
            "coronary_calcification": int(chest.coronary_calcification != "none"),
            "coronary_grade": None if chest.coronary_calcification == "none" else chest.coronary_calcification,
            "cardiomegaly": int(chest.cardiomegaly),
            "pericardial_effusion": int(chest.pericardial_effusion_mm > 0),
            "aortic_aneurysm": int(chest.aneurysm),
            "aorta_mm": chest.ascending_aorta_mm,
            "pleural_effusion_left": int(chest.effusion_left_mm > 0),
            "pleural_effusion_right": int(chest.effusion_right_mm > 0),
        },
    }


def test_labels_of_500_reports_agree_with_the_truth() -> None:
    """What a report states is right, and findings it must state are found: per attribute at least 0.98."""
    right: Counter[str] = Counter()
    stated: Counter[str] = Counter()
    must: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for number in range(500):
        patient = sample_patient(11, number)
        labels = extract(parse_report(write_report(patient, np.random.default_rng([11, number]))))
        covered = {"chest": ("chest",), "abdomen": ("kidney_left", "kidney_right")}.get(patient.scanner.coverage, tuple(labels))
        for region, values in labels.items():
            for key, truth in _truth(patient)[region].items():
                value = values[key]
                if value not in (None, -1):
                    assert region in covered, f"{region} is outside the scan but {key} is stated"
                    stated[key] += 1
                    right[key] += abs(value - truth) <= 0.05 * truth + 1 if isinstance(truth, float) else value == truth
                if region in covered and truth not in (None, 0) and key not in _MAY_BE_LEFT_OUT:
                    must[key] += 1
                    found[key] += value not in (None, -1, 0)
    assert set(stated) == {key for region in _truth(sample_patient(11, 0)).values() for key in region}
    assert {key: right[key] / stated[key] for key in stated if right[key] / stated[key] < 0.98} == {}
    assert {key: found[key] / must[key] for key in must if found[key] / must[key] < 0.98} == {}


_MAY_BE_LEFT_OUT = {"kidney_length_mm", "aorta_mm", "mass_avid", "mass_necrosis", "mass_calcification", "mass_exophytic"}


@pytest.mark.data
@pytest.mark.parametrize(
    ("column", "keys", "precision", "recall"),
    [
        ("Cardiomegaly", ("cardiomegaly",), 0.92, 0.93),
        ("Pericardial effusion", ("pericardial_effusion",), 0.90, 0.87),
        ("Coronary artery wall calcification", ("coronary_calcification",), 0.95, 0.91),
        ("Pleural effusion", ("pleural_effusion_left", "pleural_effusion_right"), 0.93, 0.92),
    ],
)
def test_real_reports_with_manual_labels(
    shared_data: Path, column: str, keys: tuple[str, ...], precision: float, recall: float
) -> None:
    """800 real chest CT reports (translated wording) labelled by hand by their publishers; floors just below today's."""
    with (shared_data / "reports" / "chest_ct_18labels" / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = Counter(
        (int(row[column]), int(any(extract(parse_report(row["report_text"]))["chest"][key] == 1 for key in keys))) for row in rows
    )
    assert pairs[1, 1] / (pairs[1, 1] + pairs[0, 1]) >= precision
    assert pairs[1, 1] / (pairs[1, 1] + pairs[1, 0]) >= recall


def test_an_ontology_with_a_broken_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a regular expression"):
        load_ontology({"name": "x", "regions": ["chest"], "findings": {"a": {"terms": ["("]}}})


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("name: x\nregions: [chest]\nfindings: {}\nfinding: {}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"own\.yaml needs name"):
        load_ontology(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_ontology(tmp_path / "none.yaml")


def test_an_own_ontology_is_used() -> None:
    own = load_ontology({"name": "lung", "regions": ["chest"], "findings": {"atelectasis": {"terms": [r"atelecta\w+"]}}})
    assert extract(parse_report("Bibasal atelectasis."), [own]) == {"chest": {"atelectasis": 1}}
    assert extract(parse_report("Lungs without atelectasis."), [own]) == {"chest": {"atelectasis": 0}}


TELEGRAPHIC: list[tuple[str, str, dict[str, Any]]] = [
    ("REPORT:\nRK: NAD.\nLK: SOL 4.2 x 3.9 cm upper pole.", "kidney_right", {"renal_mass": 0, "renal_stone": 0}),
    (
        "REPORT:\nRK: NAD.\nLK: SOL 4.2 x 3.9 cm upper pole.",
        "kidney_left",
        {"renal_mass": 1, "mass_size_mm": 42.0, "mass_pole": "upper"},
    ),
    ("REPORT:\nUreters: Normal.", "kidney_left", {"renal_mass": -1, "hydronephrosis": -1}),
    ("REPORT:\nRight kidney: Normal in size.", "kidney_right", {"renal_mass": -1, "renal_stone": -1}),
    (
        "LK: Mod PCS dilatation. Nil calculus.",
        "kidney_left",
        {"hydronephrosis": 1, "hydronephrosis_grade": "moderate", "renal_stone": 0},
    ),
    ("B/L HN.", "kidney_right", {"hydronephrosis": 1}),
    ("Lt kidney: mild fullness of PCS.", "kidney_left", {"hydronephrosis": 1, "hydronephrosis_grade": "mild"}),
    (
        "Mild CAC. Asc. aorta 5.1 cm, aneurysmal.",
        "chest",
        {"coronary_calcification": 1, "coronary_grade": "mild", "aorta_mm": 51.0},
    ),
    ("CAC score: 0.", "chest", {"coronary_calcification": 0}),
    ("CAC score of 0.5.", "chest", {"coronary_calcification": 1}),
    ("Nil pericardial effusion.", "chest", {"pericardial_effusion": 0}),
    (
        "REPORT:\nHeart: Normal.\nPericardium: NAD.",
        "chest",
        {"pericardial_effusion": 0, "cardiomegaly": 0, "aortic_aneurysm": -1},
    ),
    ("Clinical details: ?renal mass.\nExam: CT KUB.\nImp: Solid growth Rt kidney 3 cm.", "kidney_right", {"renal_mass": 1}),
]


@pytest.mark.parametrize(("text", "region", "expected"), TELEGRAPHIC, ids=[w[0] for w in TELEGRAPHIC])
def test_telegraphic_wordings(text: str, region: str, expected: dict[str, Any]) -> None:
    found = extract(parse_report(text))[region]
    assert {key: found[key] for key in expected} == expected
