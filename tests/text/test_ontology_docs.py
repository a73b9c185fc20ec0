"""The published dictionary lists what the ontologies hold, and the how-to's numbers hold for its own example."""

from pathlib import Path

import pytest

from medvl.text.extractors import RuleExtractor
from medvl.text.nephrometry import renal_score
from medvl.text.ontology import Ontology, built_in, load_ontology
from medvl.text.relations import concepts
from medvl.text.report import parse_report
from medvl.text.templates import template_text

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference" / "ontology.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("ontology", [*built_in(), load_ontology("chest")], ids=lambda o: o.name)
def test_the_page_lists_every_attribute_place_and_class(ontology: Ontology) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    known = concepts([ontology])
    for place in known.anatomies:
        assert any(row.startswith(f"| `{place.key}` | {ontology.name} |") for row in rows), place.key
    for finding in known.findings:
        assert any(row.startswith(f"| `{finding.key}` | {finding.prompt} |") for row in rows), finding.key
    for key, entry in ontology.dictionary.items():
        row = next(row for row in rows if row.startswith(f"| `{key}`") and entry["definition"] in row)
        assert all(f"`{name}`" in row and meaning in row for name, meaning in entry["classes"].items())


def test_a_mass_has_as_many_attributes_as_the_page_says() -> None:
    kidney = built_in()[0]
    assert f"a mass has {len(kidney.dictionary) + len(kidney.attributes['flags'])} attributes" in PAGE


def test_the_example_of_the_how_to() -> None:
    report = parse_report("FINDINGS: A 3 cm exophytic mass in the upper pole of the left kidney. No hydronephrosis.")
    read = RuleExtractor()(report)
    edge = read.relations["kidney_left"].edges[0]
    assert (edge.finding, edge.anatomy, edge.status, edge.sentence, edge.size_mm) == (
        "renal_mass",
        "upper_pole",
        "present",
        0,
        30.0,
    )
    sentences = template_text(read.labels["kidney_left"], built_in()[0])
    assert sentences[0] == "There is a renal mass of 30 mm at the upper pole of the kidney."
    assert sentences[-1] == "There is no hydronephrosis at the collecting system of the kidney."
    assert str(renal_score(read.labels["kidney_left"])) == "the report does not state nearness, location"
