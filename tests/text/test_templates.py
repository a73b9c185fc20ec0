"""Templates: every sentence reads back to the attributes it was made from."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from medvl.data.cohort import describe
from medvl.errors import ConfigError
from medvl.text.labels import extract_text
from medvl.text.ontology import built_in, load_ontology
from medvl.text.templates import pathology_vector, prompt_pairs, template_text

KIDNEY, HEART = built_in()
CHEST = load_ontology("chest")
NOTHING = {o.name: extract_text("", o) for o in (KIDNEY, HEART, CHEST)}


def back(labels: dict[str, Any], ontology: Any) -> dict[str, Any]:
    return extract_text(" ".join(template_text(labels, ontology)), ontology)


def test_labels_of_phantom_reports_come_back() -> None:
    for number in range(150):
        labels = describe(8, number)["labels"]
        for ontology in (KIDNEY, HEART):
            for region in ontology.regions:
                assert back(labels[region], ontology) == labels[region], template_text(labels[region], ontology)


@pytest.mark.parametrize("ontology", [KIDNEY, HEART, CHEST], ids=lambda o: o.name)
def test_each_status_of_each_finding_comes_back(ontology: Any) -> None:
    names = [n for key in ontology.findings for n in ontology.named(key)]
    for name, status in product(names, (0, 1, 2)):
        labels = NOTHING[ontology.name] | {name: status}
        assert back(labels, ontology) == labels


@pytest.mark.parametrize("mass", [1, 2])
def test_each_class_of_each_trait_comes_back(mass: int) -> None:
    bare = NOTHING["kidney"] | {"renal_mass": mass, "mass_size_mm": 31.0, "mass_large": 0}
    for key, entry in KIDNEY.attributes["choice"].items():
        for value in entry:
            assert back(bare | {key: value}, KIDNEY)[key] == value
    for key, status in product(KIDNEY.attributes["flags"], (0, 1, 2)):
        told = {"mass_enhancement": "avid"} if (key, status) == ("mass_avid", 1) else {}
        assert back(bare | {key: status}, KIDNEY) == bare | {key: status} | told


def test_the_grammar() -> None:
    labels = NOTHING["kidney"] | {
        "renal_mass": 1,
        "mass_size_mm": 31.5,
        "mass_pole": "upper",
        "mass_necrosis": 0,
        "hydronephrosis": 1,
        "hydronephrosis_grade": "mild",
        "renal_stone": 0,
        "renal_cyst": 2,
    }
    assert template_text(labels, KIDNEY) == [
        "There is a renal mass of 31.5 mm at the upper pole of the kidney.",
        "There is a renal mass without necrosis.",
        "There is a possible simple renal cyst at the kidney.",
        "There is no kidney stone at the collecting system of the kidney.",
        "There is mild hydronephrosis at the collecting system of the kidney.",
    ]
    assert template_text(NOTHING["heart"], HEART) == []


def test_prompt_pairs_state_their_finding_and_its_absence() -> None:
    for ontology in (KIDNEY, HEART, CHEST):
        pairs = prompt_pairs(ontology)
        for key, (present, absent) in pairs.items():
            if key != "mass_large":
                assert extract_text(present, ontology)[key] == 1, present
                assert extract_text(absent, ontology)[key] == 0, absent
    assert (len(prompt_pairs(KIDNEY)), len(prompt_pairs(CHEST))) == (10, 18)
    assert prompt_pairs(HEART)["pleural_effusion_left"] == (
        "There is a left pleural effusion at the left pleural space.",
        "There is no left pleural effusion at the left pleural space.",
    )


def test_an_ontology_without_phrases_uses_its_keys() -> None:
    own = load_ontology({"name": "lung", "regions": ["chest"], "findings": {"lung_nodule": {"terms": ["lung nodules?"]}}})
    assert template_text({"lung_nodule": 1}, own) == ["There is lung nodule."]
    assert prompt_pairs(own) == {"lung_nodule": ("There is lung nodule.", "There is no lung nodule.")}


def test_the_vector_has_signs_and_refuses_names_it_does_not_know() -> None:
    labels = extract_text("Enlarged heart. No pericardial effusion. Possible aneurysm.", HEART)
    names = ["cardiomegaly", "pericardial_effusion", "aortic_aneurysm", "coronary_calcification"]
    vector = pathology_vector(labels, names)
    assert vector.dtype == np.int8
    assert vector.tolist() == [1, -1, 0, 0]
    with pytest.raises(ConfigError, match="aorta_mm"):
        pathology_vector(labels, ["aorta_mm"])
