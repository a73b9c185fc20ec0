"""Extractors: rules give what the functions give, RadGraph annotations map to our concepts."""

import json
from pathlib import Path
from typing import Any

import pytest

from medvl.errors import ConfigError
from medvl.text.extractors import Extractor, RadGraphExtractor, RuleExtractor
from medvl.text.labels import extract
from medvl.text.ontology import built_in, load_ontology
from medvl.text.relations import relations
from medvl.text.report import parse_report

TEXT = (
    "FINDINGS : The heart is mildly enlarged . There is a small left pleural effusion . No pericardial effusion . "
    "Heavy calcification of the coronary arteries . Possible aneurysm of the ascending aorta . "
    "IMPRESSION : 3.2 cm exophytic mass in the upper pole of the right kidney . No left hydronephrosis ."
)


def annotation(text: str, *rows: tuple[str, str, list[tuple[str, str]]]) -> dict[str, Any]:
    """A document in the published shape; entities are (tokens, label, relations to other tokens), found in order in the text."""
    tokens, at, entities, numbers = text.split(), 0, {}, {}
    for number, (words, label, _) in enumerate(rows, 1):
        parts = words.split()
        at = next(i for i in range(at, len(tokens)) if tokens[i : i + len(parts)] == parts)
        numbers[words] = str(number)
        entities[str(number)] = {"tokens": words, "label": label, "start_ix": at, "end_ix": at + len(parts) - 1, "relations": []}
    for number, (_, _, links) in enumerate(rows, 1):
        after = {r[0]: str(k) for k, r in reversed(list(enumerate(rows, 1))) if abs(k - number) <= 4}
        entities[str(number)]["relations"] = [[kind, after[target]] for kind, target in links]
    return {"text": text, "data_source": None, "entities": entities}


CHEST = annotation(
    TEXT,
    ("heart", "ANAT-DP", []),
    ("mildly", "OBS-DP", [("modify", "enlarged")]),
    ("enlarged", "OBS-DP", [("located_at", "heart")]),
    ("small", "OBS-DP", [("modify", "effusion")]),
    ("left", "ANAT-DP", [("modify", "pleural")]),
    ("pleural", "ANAT-DP", []),
    ("effusion", "OBS-DP", [("located_at", "pleural")]),
    ("pericardial", "ANAT-DP", []),
    ("effusion", "OBS-DA", [("located_at", "pericardial")]),
    ("Heavy", "OBS-DP", [("modify", "calcification")]),
    ("calcification", "OBS-DP", [("located_at", "arteries")]),
    ("coronary", "ANAT-DP", [("modify", "arteries")]),
    ("arteries", "ANAT-DP", []),
    ("aneurysm", "OBS-U", [("located_at", "aorta")]),
    ("ascending", "ANAT-DP", [("modify", "aorta")]),
    ("aorta", "ANAT-DP", []),
    ("3.2 cm", "OBS-DP", [("modify", "mass")]),
    ("exophytic", "OBS-DP", [("modify", "mass")]),
    ("mass", "OBS-DP", [("located_at", "kidney")]),
    ("upper pole", "ANAT-DP", [("modify", "kidney")]),
    ("right", "ANAT-DP", [("modify", "kidney")]),
    ("kidney", "ANAT-DP", []),
    ("left", "ANAT-DP", []),
    ("hydronephrosis", "OBS-DA", [("located_at", "left")]),
)


def test_rules_are_the_functions_with_their_provenance() -> None:
    report = parse_report(TEXT)
    reader: Extractor = RuleExtractor()
    got = reader(report)
    assert got.labels == extract(report)
    kidney = built_in()[0]
    assert got.relations["kidney_right"] == relations(report.regions["kidney_right"], kidney)
    assert got.provenance.extractor == "rules"
    assert got.provenance.ontologies["kidney"] == kidney.digest
    assert json.loads(json.dumps(got.as_dict()))["labels"]["chest"]["cardiomegaly"] == 1


def test_an_ontology_of_whole_reports_reads_the_whole_report() -> None:
    got = RuleExtractor([load_ontology("chest")])(parse_report(TEXT))
    assert got.labels["report"]["cardiomegaly"] == 1
    assert {e.finding for e in got.relations["report"].edges if e.status == "present"} >= {"cardiomegaly", "pleural_effusion"}


def test_radgraph_entities_become_our_labels() -> None:
    labels = RadGraphExtractor([CHEST]).read(CHEST).labels
    chest = {k: v for k, v in labels["chest"].items() if v not in (-1, None)}
    assert chest == {
        "cardiomegaly": 1,
        "pleural_effusion_left": 1,
        "pericardial_effusion": 0,
        "coronary_calcification": 1,
        "coronary_grade": "severe",
        "aortic_aneurysm": 2,
    }
    right = {k: v for k, v in labels["kidney_right"].items() if v not in (-1, None)}
    assert right == {
        "renal_mass": 1,
        "mass_size_mm": 32.0,
        "mass_large": 0,
        "mass_exophytic": 1,
        "mass_growth": "mostly_exophytic",
        "mass_pole": "upper",
    }
    assert {k: v for k, v in labels["kidney_left"].items() if v not in (-1, None)} == {"hydronephrosis": 0}


def test_radgraph_relations_become_edges() -> None:
    graphs = RadGraphExtractor([CHEST]).read(CHEST).relations
    edges = {(e.finding, e.anatomy, e.status, e.sentence) for e in graphs["chest"].edges}
    assert edges == {
        ("cardiomegaly", "heart", "present", 0),
        ("pleural_effusion_left", "pleura_left", "present", 1),
        ("pericardial_effusion", "pericardium", "absent", 2),
        ("coronary_calcification", "coronary_arteries", "present", 3),
        ("aortic_aneurysm", "thoracic_aorta", "uncertain", 4),
    }
    mass = [e for e in graphs["kidney_right"].edges if e.finding == "renal_mass"]
    assert [(e.anatomy, e.status, e.size_mm) for e in mass] == [("upper_pole", "present", 32.0)]


def test_a_suggested_finding_lies_where_what_suggests_it_lies() -> None:
    text = "Fluid in the left pleural space suggesting effusion ."
    graph = annotation(
        text,
        ("Fluid", "OBS-DP", [("located_at", "pleural space"), ("suggestive_of", "effusion")]),
        ("left", "ANAT-DP", [("modify", "pleural space")]),
        ("pleural space", "ANAT-DP", []),
        ("effusion", "OBS-U", []),
    )
    edges = RadGraphExtractor([graph]).read(graph).relations["chest"].edges
    assert ("pleural_effusion_left", "pleura_left", "uncertain") in {(e.finding, e.anatomy, e.status) for e in edges}


def test_normal_is_absent() -> None:
    graph = annotation("Heart is normal .", ("Heart", "ANAT-DP", []), ("normal", "OBS-DP", [("located_at", "Heart")]))
    assert RadGraphExtractor([graph]).read(graph).labels["chest"]["cardiomegaly"] == 0


def test_long_label_names_are_the_same(tmp_path: Path) -> None:
    names = {
        "ANAT-DP": "Anatomy::definitely present",
        "OBS-DP": "Observation::definitely present",
        "OBS-DA": "Observation::definitely absent",
        "OBS-U": "Observation::uncertain",
    }
    long = CHEST | {"entities": {k: e | {"label": names[e["label"]]} for k, e in CHEST["entities"].items()}}
    path = tmp_path / "graphs.json"
    path.write_text(json.dumps({"0": long}), encoding="utf-8")
    report = parse_report(TEXT.replace("FINDINGS :", "FINDINGS:\n").replace("IMPRESSION :", "\nIMPRESSION:\n"))
    assert RadGraphExtractor.load(path)(report).labels["chest"]["cardiomegaly"] == 1
    path.write_text(json.dumps({"0": long | {"text": report.said()}}), encoding="utf-8")
    reader = RadGraphExtractor.load(path)
    assert reader(report).labels["chest"]["cardiomegaly"] == 1
    with pytest.raises(ConfigError, match="annotate it first"):
        reader(parse_report("Other words."))


@pytest.mark.parametrize(
    "document",
    [
        {"text": "a"},
        {"text": "a", "entities": {"1": {"tokens": "a", "label": "OBS-XX", "start_ix": 0, "relations": []}}},
        {"text": "a", "entities": {"1": {"tokens": "a", "label": "OBS-DP", "start_ix": 0, "relations": [["modify", "7"]]}}},
        {"text": "a", "entities": {"1": {"tokens": "a", "label": "OBS-DP", "start_ix": "0", "relations": []}}},
        [],
    ],
)
def test_odd_annotations_are_refused(document: Any) -> None:
    with pytest.raises(ConfigError, match="RadGraph annotation"):
        RadGraphExtractor([document])


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"g\.json is no readable JSON"):
        RadGraphExtractor.load(tmp_path / "g.json")
