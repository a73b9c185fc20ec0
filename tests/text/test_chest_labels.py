"""The 18 chest findings: hand-written wordings of each rule, and the half of the real reports that no rule was tuned on."""

import csv
import hashlib
from pathlib import Path

import pytest
from sklearn.metrics import f1_score

from medvl.text.labels import extract, extract_text
from medvl.text.ontology import BUILT_IN, built_in, load_ontology
from medvl.text.relations import relations
from medvl.text.report import parse_report

CHEST = load_ontology("chest")
WORDINGS = [
    ("Pericardial effusion - no thickening was detected.", "pericardial_effusion", 0),
    ("Pericardial effusion-thickening was not observed.", "pericardial_effusion", 0),
    ("Minimal effusion is seen in the thickest part of the pericardium.", "pericardial_effusion", 1),
    ("The heart is larger than normal.", "cardiomegaly", 1),
    ("Heart contour and size are normal.", "cardiomegaly", 0),
    ("Non-specific nodules are seen in both lungs.", "lung_nodule", 1),
    ("No nodule, mass or infiltration was detected in both lungs.", "lung_nodule", 0),
    ("A hypodense nodule is seen in the liver.", "lung_nodule", -1),
    ("The thyroid is enlarged. Nodules are observed in it.", "lung_nodule", -1),
    ("The liver is normal. In the right lung a nodule of 4 mm is seen.", "lung_nodule", 1),
    ("The nodule, which was seen in the right lung before, was not detected in this examination.", "lung_nodule", 0),
    ("A nodule described in the previous examination of the left lung has disappeared.", "lung_nodule", 0),
    ("Densities in both lung bases, which were not seen in the previous examination: consolidation.", "consolidation", 1),
    ("Consolidation?", "consolidation", 2),
    ("Consolidation cannot be excluded.", "consolidation", 2),
    ("There was no increase in peribronchial wall thickness.", "peribronchial_thickening", 0),
    ("No increase in the number of nodules in the lungs.", "lung_nodule", 1),
    ("LYMPH NODES: Normal.", "lymphadenopathy", 0),
    ("Lymph nodes that do not reach pathological size are seen in the mediastinum.", "lymphadenopathy", 1),
    ("Subcutaneous emphysema on the left.", "emphysema", -1),
    ("Calcified plaques in the coronary arteries.", "coronary_calcification", 1),
    ("Calcified plaques in the coronary arteries.", "arterial_calcification", -1),
    ("Calcified plaques in the aorta and the coronary arteries.", "arterial_calcification", 1),
    ("Calcified plaques in the aorta and the coronary arteries.", "coronary_calcification", 1),
    ("Calcification of the aortic valve.", "arterial_calcification", -1),
    ("The portal vein is open; contrast material was given.", "medical_material", -1),
    ("A port catheter ends in the right atrium.", "medical_material", 1),
    ("Bilateral hydrothorax.", "pleural_effusion", 1),
    ("A ground-glass nodule in the right lung.", "lung_opacity", -1),
    ("Patchy ground-glass areas in the right lung.", "lung_opacity", 1),
    ("Sequelae of a rib fracture.", "fibrotic_sequela", -1),
    ("Fibroatelectatic sequelae in the lingula.", "fibrotic_sequela", 1),
    ("The lungs are unremarkable.", "bronchiectasis", 0),
]


@pytest.mark.parametrize(("text", "finding", "status"), WORDINGS, ids=[f"{w[0]} {w[1]}" for w in WORDINGS])
def test_wordings(text: str, finding: str, status: int) -> None:
    assert extract_text(text, CHEST)[finding] == status


def test_words_shared_by_two_findings_count_for_both() -> None:
    found = extract_text("Ground-glass density increases with consolidations and nodular densities in both lungs.", CHEST)
    assert {key for key, status in found.items() if status == 1} == {"lung_opacity", "consolidation", "lung_nodule"}


def test_a_whole_report_is_read_without_its_history() -> None:
    report = parse_report("HISTORY: Known emphysema.\nFINDINGS: Nodules of 3 mm are seen.\nIMPRESSION: Hiatal hernia.")
    found = extract(report, [CHEST])["report"]
    assert (found["lung_nodule"], found["hiatal_hernia"], found["emphysema"]) == (1, 1, -1)


def test_items_of_an_impression_stand_alone() -> None:
    found = extract_text('Trachea is open. " No consolidation" Bronchiectasis in both lungs. • Emphysema', CHEST)
    assert (found["consolidation"], found["bronchiectasis"], found["emphysema"]) == (0, 1, 1)


@pytest.mark.parametrize(
    ("text", "finding", "place"),
    [
        ("Emphysema in the upper lobe of the right lung.", "emphysema", "lung_right"),
        ("In the lingula a nodule is seen.", "lung_nodule", "lung_left"),
        ("Bilateral lung nodules.", "lung_nodule", "lungs"),
        ("Left pleural effusion.", "pleural_effusion", "pleura_left"),
        ("No pleural effusion.", "pleural_effusion", "pleurae"),
        ("Enlarged lymph nodes in both axillae.", "lymphadenopathy", "axillae"),
        ("A catheter ends in the heart.", "medical_material", "heart"),
        ("Bronchiectasis is seen in the left lower lobe.", "bronchiectasis", "bronchi"),
    ],
)
def test_where_a_finding_stands(text: str, finding: str, place: str) -> None:
    assert [(e.finding, e.anatomy) for e in relations(text, CHEST).edges] == [(finding, place)]


def test_the_chest_table_is_read_when_named_only() -> None:
    assert tuple(o.name for o in built_in()) == BUILT_IN == ("kidney", "heart")
    assert len(CHEST.findings) == 18
    assert len({finding["label"] for finding in CHEST.findings.values()}) == 18


@pytest.mark.data
def test_macro_f1_on_the_half_that_no_rule_was_tuned_on(shared_data: Path) -> None:
    """0.948 at the time of writing; scored by another library than the benchmark."""
    with (shared_data / "reports" / "chest_ct_18labels" / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if int(hashlib.sha256(r["report_text"].encode()).hexdigest(), 16) % 2]
    assert len(rows) == 395
    truth = [[int(float(r[f["label"]])) for f in CHEST.findings.values()] for r in rows]
    said = [[int(v in (1, 2)) for v in extract_text(r["report_text"], CHEST).values()] for r in rows]
    assert f1_score(truth, said, average="macro") > 0.94
