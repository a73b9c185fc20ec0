"""Reports as templates: what a stage reads of each region, what counts as equal text, and which vectors targets compare."""

from __future__ import annotations

import numpy as np
import pytest

from medvl.data.cohort import Cohort, describe
from medvl.data.statements import region_texts
from medvl.objectives.image_text import label_cosine
from medvl.recipe import load_recipe
from medvl.text.labels import extract_text
from medvl.text.ontology import built_in
from medvl.text.report import split_sentences
from medvl.text.templates import pathology_vector
from medvl.training.features import text_versions
from medvl.training.samples import KindData
from medvl_pipelines.built_in import recipe_file

KIDNEY, HEART = built_in()
REGIONS = ("kidney_left", "chest", "kidney_right")
RECIPE = load_recipe(recipe_file("cardiac-clip-small"))
TEMPLATES = load_recipe(recipe_file("cardiac-clip-small"), ["stages.align.report_text=templates"])


def part_of(kind: str, cases: list[dict]) -> KindData:
    given = RECIPE.kinds[kind]
    texts = region_texts(cases, given, REGIONS, np.ones((len(cases), len(REGIONS)), bool))
    cohort = Cohort(np.zeros((len(cases), 3, 1, 1, 1), np.int16), np.ones((len(cases), 3), np.float32), cases, REGIONS)
    return KindData(list(RECIPE.kinds).index(kind), given, texts, cohort, ((-150.0, 250.0),))


def case(**said: str) -> dict:
    ontologies = {region: o for o in (KIDNEY, HEART) for region in o.regions}
    texts = {region: said.get(region, "") for region in REGIONS}
    return {"region_texts": texts, "labels": {region: extract_text(texts[region], ontologies[region]) for region in REGIONS}}


def templates_of(part: KindData) -> list[str]:
    return [" ".join(parts) for parts in part.sentences(visible_only=False, strip_numbers=False, report_text="templates")]


def test_each_region_has_its_own_labels_in_its_own_sentences() -> None:
    cases = [
        case(
            kidney_left="Left kidney: a stone of 7 mm.",
            kidney_right="The right kidney is 11 cm long. No stone.",
            chest="Big heart.",
        ),
        case(
            kidney_right="A mass of 3 cm in the upper pole of the right kidney.",
            chest="The heart is enlarged. No pericardial effusion.",
        ),
    ]
    assert templates_of(part_of("kidney", cases)) == [
        "There is a kidney stone of 7 mm at the collecting system of the kidney.",
        "There is a length of 110 mm at the kidney. There is no kidney stone at the collecting system of the kidney.",
        "There is a renal mass of 30 mm at the upper pole of the kidney.",
    ]
    assert (
        templates_of(part_of("chest", cases))[1]
        == "There is cardiomegaly at the heart. There is no pericardial effusion at the pericardium."
    )


def test_a_report_that_states_no_label_is_kept_as_it_is() -> None:
    cases = [case(chest="Lungs clear. No nodules."), {**case(chest="Enlarged heart."), "labels": {"chest": {}}}]
    part = part_of("chest", cases)
    assert templates_of(part) == ["Lungs clear. No nodules.", "Enlarged heart."]
    assert len(part_of("kidney", cases)) == 0
    assert templates_of(part_of("kidney", cases)) == []


def test_templates_of_phantoms_read_back_to_their_targets() -> None:
    cases = [describe(11, number) for number in range(20)]
    for kind, ontology in (("kidney", KIDNEY), ("chest", HEART)):
        part = part_of(kind, cases)
        again = [{**c, "labels": {}} for c in cases]
        for (row, column), said in zip(zip(part.texts.rows, part.texts.columns, strict=True), templates_of(part), strict=True):
            again[row]["labels"] |= {REGIONS[column]: extract_text(said, ontology)}
        found = part_of(kind, again).texts.targets
        for name in ("binary", "classes", "numbers"):
            np.testing.assert_array_equal(getattr(found, name), getattr(part.texts.targets, name))


def test_equal_templates_of_different_reports_are_one_text() -> None:
    cases = [case(chest=said) for said in ("Enlarged heart.", "The heart is enlarged.", "No pericardial effusion.")]
    part = part_of("chest", cases)
    assert len(set(part.duplicates())) == 3
    numbers = part.duplicates("templates")
    assert numbers[0] == numbers[1] != numbers[2]


def test_templates_are_cleaned_and_reordered_like_reports() -> None:
    part = part_of("kidney", [case(kidney_left="A stone of 7 mm. The left kidney is 10 cm long. No mass.")])
    stage = TEMPLATES.stages[-1].model_copy(update={"text_versions": 4, "visible_only": True})
    versions = text_versions(part, stage, 0)[0]
    assert versions[0] == templates_of(part)[0]
    assert {frozenset(split_sentences(text)) for text in versions} == {frozenset(split_sentences(versions[0]))}


def test_what_the_docs_count() -> None:
    """docs/explanation/recipes.md: words of a text and different texts, as reports and as templates."""
    cases = [describe(11, number) for number in range(400)]
    counted = {}
    for kind in ("kidney", "chest"):
        part = part_of(kind, cases)
        free, said = [" ".join(parts) for parts in part.texts.sentences], templates_of(part)
        words = [round(float(np.mean([len(text.split()) for text in texts]))) for texts in (free, said)]
        counted[kind] = (len(part), *words, len(set(free)), len(set(said)))
    assert counted == {"kidney": (716, 41, 58, 713, 544), "chest": (318, 35, 56, 318, 252)}


@pytest.mark.parametrize("kind", ["kidney", "chest"])
def test_cosine_targets_are_those_of_pathology_vectors(kind: str) -> None:
    """The sign vectors that soft targets compare are the templates' pathology vectors, an empty one being like none."""
    cases = [describe(11, number) for number in range(20)] + [case(chest="Lungs clear.", kidney_left="Seen.")]
    part = part_of(kind, cases)
    labels = [cases[r]["labels"][REGIONS[c]] for r, c in zip(part.texts.rows, part.texts.columns, strict=True)]
    vectors = [[int(v) for v in pathology_vector(row, part.kind.binary)] for row in labels]
    found = label_cosine(part.texts.targets)
    assert any(not any(v) for v in vectors)
    for i, a in enumerate(vectors):
        for j, b in enumerate(vectors):
            length = (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
            assert found[i, j] == pytest.approx(sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0)
