"""Relations from words: hand-written graphs, agreement with the labels on phantom reports, matrices and their margins."""

import numpy as np
import pytest

from medvl.data.cohort import describe
from medvl.errors import ConfigError
from medvl.text.labels import extract_text
from medvl.text.ontology import built_in, load_ontology
from medvl.text.relations import Concepts, Edge, RelationGraph, concepts, existence, mirrored, relation_matrix, relations

KIDNEY, HEART = built_in()
ALL = concepts([KIDNEY, HEART])

GRAPHS = [
    ("A 3 cm mass in the upper pole of the left kidney.", {("renal_mass", "upper_pole", "present", 30.0)}),
    ("No hydronephrosis.", {("hydronephrosis", "collecting_system", "absent", None)}),
    (
        "There is a 9 mm stone in the lower pole and a cyst of 2 cm in the upper pole.",
        {("renal_stone", "lower_pole", "present", 9.0), ("renal_cyst", "upper_pole", "present", 20.0)},
    ),
    (
        "No stone, but a 12 mm cyst in the lower pole.",
        {("renal_stone", "collecting_system", "absent", None), ("renal_cyst", "lower_pole", "present", 12.0)},
    ),
    (
        "A 3 cm mass in the lower pole. It is exophytic. No necrosis within the mass.",
        {
            ("renal_mass", "lower_pole", "present", 30.0),
            ("renal_mass", "lower_pole", "present", None),
            ("mass_exophytic", "lower_pole", "present", None),
            ("mass_necrosis", "lower_pole", "absent", None),
        },
    ),
    ("A cyst with a diameter of 2 cm lies in the interpolar region.", {("renal_cyst", "interpolar", "present", 20.0)}),
    ("Upper pole cyst. Benign renal cyst as before.", {("renal_cyst", "upper_pole", "present", None)}),
    ("The lesion may represent a cyst.", {("renal_cyst", "kidney", "uncertain", None)}),
    ("No necrosis.", set()),
]


@pytest.mark.parametrize(("text", "said"), GRAPHS)
def test_hand_written_graphs(text: str, said: set[tuple[str, str, str, float | None]]) -> None:
    edges = relations(text, KIDNEY).edges
    found = {(e.finding, e.anatomy, e.status, e.size_mm) for e in edges if e.finding != "mass_large"}
    assert found == said


def test_a_chest_finding_stands_at_home_on_its_side() -> None:
    edges = relations(
        "Left pleural effusion. The coronary arteries are heavily calcified. The pericardium is normal.", HEART
    ).edges
    assert {(e.finding, e.anatomy, e.status, e.sentence) for e in edges} == {
        ("pleural_effusion_left", "pleura_left", "present", 0),
        ("coronary_calcification", "coronary_arteries", "present", 1),
        ("pericardial_effusion", "pericardium", "absent", 2),
    }


def test_the_matrix_says_what_the_labels_say_on_phantom_reports() -> None:
    columns = {c.key: i for i, c in enumerate(ALL.findings)}
    seen = {0: 0, 1: 0}
    for number in range(100):
        texts = describe(5, number)["region_texts"]
        for ontology in (KIDNEY, HEART):
            for region in ontology.regions:
                labels = extract_text(texts[region], ontology)
                found, _ = existence(relation_matrix(relations(texts[region], ontology), ALL))
                for key, column in columns.items():
                    expected = labels.get(key, -1)
                    assert found[column] == (expected if expected in (0, 1) else -1), (region, key, texts[region])
                    if expected in seen:
                        seen[int(expected)] += 1
    assert min(seen.values()) > 300


def test_a_mass_stands_where_the_truth_has_it() -> None:
    right, wrong = 0, 0
    for number in range(120):
        case = describe(5, number)
        for region in KIDNEY.regions:
            mass = case["truth"][region]["mass"]
            edges = [e for e in relations(case["region_texts"][region], KIDNEY).edges if e.finding == "renal_mass"]
            places = {e.anatomy for e in edges if e.status == "present"}
            if mass and places and case["labels"][region]["mass_pole"]:
                key = "interpolar" if mass["pole"] == "interpolar" else f"{mass['pole']}_pole"
                right, wrong = right + (places == {key}), wrong + (places != {key})
    assert right >= 30
    assert wrong == 0


def test_present_wins_over_absent_and_uncertain_is_left_out() -> None:
    known = Concepts(ALL.anatomies[:2], ALL.findings[:3])
    a, b = (c.key for c in known.anatomies)
    f, g, h = (c.key for c in known.findings)
    graph = RelationGraph(
        (Edge(a, f, "absent", 0), Edge(a, f, "present", 1), Edge(b, g, "absent", 1), Edge(b, h, "uncertain", 1))
    )
    matrix = relation_matrix(graph, known)
    assert matrix.dtype == np.int8
    assert matrix.tolist() == [[1, -1, -1], [-1, 0, -1]]
    findings, anatomies = existence(matrix)
    assert findings.tolist() == [1, 0, -1]
    assert anatomies.tolist() == [1, 0]


def test_an_unknown_concept_is_named() -> None:
    with pytest.raises(ConfigError, match="lack upper_pole or renal_mass"):
        relation_matrix(relations("Upper pole mass.", KIDNEY), concepts([HEART]))
    with pytest.raises(ConfigError, match="no rows"):
        existence(np.zeros((0, 3), np.int8))


def test_concepts_have_knowledge_sentences_of_their_own() -> None:
    keys = [c.key for c in ALL.findings]
    assert keys == sorted(set(keys), key=keys.index)
    assert {"renal_mass", "mass_large", "mass_avid", "pleural_effusion_right", "cardiomegaly"} <= set(keys)
    assert len(keys) == 16
    assert len({c.prompt for c in ALL.findings}) == 16
    assert all("on CT" in c.prompt and "{" not in c.prompt + c.label for c in ALL.findings)
    assert next(c for c in ALL.anatomies if c.key == "upper_pole").prompt == "It is located at the upper pole of the kidney."


def test_a_key_that_two_ontologies_use_differently_is_told_apart() -> None:
    own = load_ontology({"name": "lung", "regions": ["chest"], "findings": {"cardiomegaly": {"terms": ["big heart"]}}})
    known = concepts([HEART, own])
    graph = relations("Big heart.", own)
    row = [c.key for c in known.anatomies].index("lung.unspecified")
    column = [c.key for c in known.findings].index("lung.cardiomegaly")
    matrix = relation_matrix(graph, known)
    assert np.argwhere(matrix >= 0).tolist() == [[row, column]]


def test_a_mirrored_matrix_has_its_sides_swapped() -> None:
    rows, columns = mirrored(ALL)
    left = relation_matrix(relations("Left pleural effusion. No right pleural effusion. Enlarged heart.", HEART), ALL)
    right = relation_matrix(relations("Right pleural effusion. No left pleural effusion. Enlarged heart.", HEART), ALL)
    assert (left[rows][:, columns] == right).all()
    assert (left != right).any()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"key": "a"}], "needs key and label"),
        ([{"key": "a", "label": "a", "side": "up"}], "give left, right or none"),
        ([{"key": "a", "label": "a", "terms": ["a"]}], "exactly one anatomy"),
        ([{"key": "a", "label": "a", "terms": ["x"]}, {"key": "a", "label": "b"}], "share a key"),
    ],
)
def test_odd_anatomies_are_refused(rows: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_ontology({"name": "x", "regions": ["chest"], "findings": {}, "anatomies": rows})


def test_the_digest_changes_with_a_word() -> None:
    one = {"name": "x", "regions": ["chest"], "findings": {"a": {"terms": ["b"]}}}
    two = {"name": "x", "regions": ["chest"], "findings": {"a": {"terms": ["c"]}}}
    assert load_ontology(one).digest == load_ontology(dict(one)).digest != load_ontology(two).digest
