"""The renal-mass dictionary: wordings of every attribute, and the R.E.N.A.L. score against its published table."""

import re

import pytest

from medvl.errors import ConfigError
from medvl.text.labels import extract_text
from medvl.text.nephrometry import renal_score
from medvl.text.ontology import built_in, load_ontology

KIDNEY = built_in()[0]

WORDINGS = [
    ("A 3 cm predominantly exophytic mass.", "mass_growth", "mostly_exophytic"),
    ("A mass, less than 50% exophytic.", "mass_growth", "partly_exophytic"),
    ("A 3 cm entirely endophytic mass.", "mass_growth", "endophytic"),
    ("A mass. It lies 9 mm from the collecting system.", "mass_nearness", "at_least_7_mm"),
    ("A 30 mm mass, 5.5 mm from the renal sinus.", "mass_nearness", "between_4_and_7_mm"),
    ("A 30 mm mass, 4.0 mm from the collecting system.", "mass_nearness", "at_most_4_mm"),
    ("A 30 mm mass abutting the collecting system.", "mass_nearness", "at_most_4_mm"),
    ("An anterior mass of the kidney.", "mass_face", "anterior"),
    ("A mass on the posterior surface.", "mass_face", "posterior"),
    ("The mass is neither anterior nor posterior.", "mass_face", "neither"),
    ("The mass lies entirely above the upper polar line.", "mass_polar_lines", "outside"),
    ("The mass crosses the lower polar line.", "mass_polar_lines", "crosses"),
    ("The mass lies between the polar lines.", "mass_polar_lines", "between"),
    ("A hilar mass.", "mass_hilar", "hilar"),
    ("The mass does not abut the main renal artery.", "mass_hilar", "not_hilar"),
    ("A Bosniak III cystic mass.", "mass_bosniak", "III"),
    ("A Bosniak category IIF cystic lesion.", "mass_bosniak", "IIF"),
    ("An ill-defined mass.", "mass_margin", "ill_defined"),
    ("A well-circumscribed mass.", "mass_margin", "well_defined"),
    ("A lobulated mass.", "mass_shape", "lobulated"),
    ("A heterogeneous mass.", "mass_homogeneity", "heterogeneous"),
    ("A homogeneous mass.", "mass_homogeneity", "homogeneous"),
    ("A mass. It does not enhance.", "mass_enhancement", "none"),
    ("A moderately enhancing mass.", "mass_enhancement", "moderate"),
    ("A mass with washout.", "mass_washout", "present"),
    ("A mass without washout.", "mass_washout", "absent"),
    ("A mass with macroscopic fat.", "mass_fat", "present"),
    ("A mass. No haemorrhage or macroscopic fat within the mass.", "mass_fat", "absent"),
    ("A mass. The mass contains hemorrhage.", "mass_haemorrhage", "present"),
    ("A mass with a pseudocapsule.", "mass_pseudocapsule", "present"),
    ("A mass with a central scar.", "mass_scar", "present"),
    ("A mass with tumour thrombus in the renal vein.", "mass_veins", "renal_vein"),
    ("A mass with thrombus reaching the IVC.", "mass_veins", "vena_cava"),
    ("A mass without renal vein invasion.", "mass_veins", "none"),
    ("A mass invading the perinephric fat.", "mass_perinephric", "present"),
    ("A mass confined to the kidney.", "mass_perinephric", "absent"),
    ("A mass with invasion of the renal sinus.", "mass_sinus", "present"),
    ("No mass. Hilar vessels with macroscopic fat around.", "mass_fat", None),
]


@pytest.mark.parametrize(("text", "key", "value"), WORDINGS)
def test_wordings_of_the_dictionary(text: str, key: str, value: str | None) -> None:
    assert extract_text(text, KIDNEY)[key] == value


def test_every_attribute_with_classes_is_worded_and_explained() -> None:
    choice = KIDNEY.attributes["choice"]
    assert set(choice) | {"renal_radius"} == set(KIDNEY.dictionary)
    assert len(set(KIDNEY.dictionary) | set(KIDNEY.attributes["flags"])) >= 14
    assert {e["part"] for e in KIDNEY.dictionary.values() if "part" in e} == set("RENALH")
    for entry in KIDNEY.dictionary.values():
        assert entry["label"]
        assert re.match(r"[A-Z].*\.$", entry["definition"])


def score(size: float, growth: str, near: str, face: str, lines: str, hilar: str) -> str:
    text = (
        f"A {size} mm {growth} mass. The mass lies {near} from the collecting system. "
        f"The mass is {face}. The mass {lines}. The mass is {hilar}."
    )
    return str(renal_score(extract_text(text, KIDNEY)))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ((40, "predominantly exophytic", "7 mm", "anterior", "lies above the upper polar line", "non-hilar"), "4a"),
        ((41, "partly exophytic", "6.9 mm", "posterior", "crosses the polar line", "hilar"), "8ph"),
        ((69, "entirely endophytic", "4.1 mm", "neither anterior nor posterior", "crosses the midline", "hilar"), "10xh"),
        ((70, "entirely endophytic", "4 mm", "posterior", "lies between the polar lines", "non-hilar"), "12p"),
    ],
)
def test_scores_at_the_published_cuts(said: tuple[float, str, str, str, str, str], expected: str) -> None:
    assert score(*said) == expected


def test_what_is_not_stated_is_not_guessed() -> None:
    got = renal_score(extract_text("A 5 cm exophytic mass of the upper pole.", KIDNEY))
    assert (got.radius, got.exophytic, got.nearness, got.location, got.hilar, got.total) == (2, 1, None, None, None, None)
    assert got.reason == "the report does not state nearness, location"
    assert renal_score(extract_text("A mass that is not exophytic.", KIDNEY)).exophytic is None
    assert str(renal_score(extract_text("No mass.", KIDNEY))) == "no renal mass is stated"


def test_classes_that_disagree_are_refused() -> None:
    data = {
        "name": "x",
        "regions": ["chest"],
        "findings": {},
        "attributes": {"choice": {"shape": {"round": ["round"]}}},
        "dictionary": {"shape": {"label": "shape", "definition": "Shape.", "classes": {"oval": "oval"}}},
    }
    with pytest.raises(ConfigError, match="classes of shape differ"):
        load_ontology(data)
