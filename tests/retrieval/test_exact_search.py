"""Search against brute force in float64, faiss, and plain loops over the cases."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from cases import SPACE, built, entries, vectors

from medvl.errors import ConfigError
from medvl.imaging.phantom.truth import Phase
from medvl.retrieval import search as module
from medvl.retrieval.entry import Entry
from medvl.retrieval.filters import VOCABULARY, Condition
from medvl.retrieval.search import Exclude, search, similar
from medvl.retrieval.store import Index
from medvl.retrieval.vectors import exact_levels, quantise

WIDTH = SPACE.width
Keep = Callable[[Entry], bool]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)


def brute(
    given: np.ndarray, cases: list[Entry], query: np.ndarray, k: int, keep: Keep = lambda e: True
) -> list[tuple[str, float]]:
    """Every cosine, sorted; equal ones by id."""
    scores = (unit(given) * (query / np.linalg.norm(query))).sum(1)
    found = [(case.id, float(s)) for case, s in zip(cases, scores, strict=True) if keep(case)]
    return sorted(found, key=lambda hit: (-hit[1], hit[0]))[:k]


def pairs(found: module.Found) -> list[tuple[str, float]]:
    return [(hit.entry.id, hit.score) for hit in found.hits]


@pytest.fixture(params=["int8", "float32", "direct"])
def precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Each way to scan; small indexes would not be scanned otherwise."""
    if request.param != "direct":
        monkeypatch.setattr(module, "DIRECT", -1)
        monkeypatch.setattr("medvl.retrieval.vectors.FEW", 0)
        if request.param == "int8" and not exact_levels():
            pytest.skip("no exact 8-bit product on this machine")
        return str(request.param)
    return None


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """300 cases; not to be changed."""
    return built(tmp_path_factory.mktemp("index"))


FILTERS: dict[str, Keep] = {
    "": lambda e: True,
    "region=kidney_left": lambda e: e.region == "kidney_left",
    "phase=arterial,venous sex!=M": lambda e: e.phase != "" and e.sex == "F",
    "phase!=arterial": lambda e: e.phase == "venous",
    "age>=60 age<75": lambda e: e.age_years is not None and 60 <= e.age_years < 75,
    "age!=60": lambda e: e.age_years is not None and e.age_years != 60,
    "finding:renal_mass absent:cyst": lambda e: e.findings["renal_mass"] == 1 and e.findings.get("cyst") == 0,
    "unstated:cyst": lambda e: e.findings.get("cyst", -1) == -1,
    "site=north slice_mm<=2": lambda e: e.extra["site"] == "north" and float(e.extra["slice_mm"]) <= 2,
    "patient=P3": lambda e: e.patient == "P3",
    "age>200": lambda e: False,
}


@pytest.mark.parametrize("where", FILTERS)
@pytest.mark.parametrize("field", ["image", "report"])
def test_search_equals_brute_force_under_any_filter(where: str, field: str, precision: str | None, index: Index) -> None:
    cases, given = entries(300), vectors(300)[field]
    rng = np.random.default_rng(3)
    for k in (1, 10, 1000):
        query = given[5] + 0.1 * rng.normal(size=WIDTH)
        found = search(index, query, k, field=field, where=where, precision=precision)  # type: ignore[arg-type]
        assert pairs(found) == brute(given, cases, query, k, FILTERS[where])
        assert found.n_searched == sum(map(FILTERS[where], cases))
        assert found.n_cases == 300


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("phase=venus", "has phase venus; did you mean venous?"),
        ("phase=arterial,venus", "has phase venus; did you mean venous?"),
        ("phase!=venus", "has phase venus"),
        ("site=nort", "has site nort; did you mean north?"),
        ("sex=x", "has sex x; known: F, M"),
        ("patient=Q777", "150 other values occur"),
    ],
)
def test_a_text_value_that_no_case_has_is_an_error(where: str, says: str, index: Index) -> None:
    query = vectors(300)["image"][5]
    with pytest.raises(ConfigError, match=re.escape(says)):
        search(index, query, where=where)
    with pytest.raises(ConfigError, match=re.escape(says)):
        similar(index, "P3/kidney_left", where=where)


def test_what_a_program_asks_and_what_a_vocabulary_holds_may_be_missing(index: Index) -> None:
    query = vectors(300)["image"][5]
    assert search(index, query, where="phase=delayed").n_searched == 0
    assert search(index, query, where="phase=delayed,arterial").n_searched > 0
    assert search(index, query, where=[Condition("region", "=", ("chest",))]).n_searched == 0
    assert search(index, query, where=[Condition("patient", "!=", ("Q777",))]).n_searched == 300
    assert set(VOCABULARY["phase"]) == set(get_args(Phase))


@pytest.mark.parametrize("width", [5, 512])
def test_scan_bounds_hold_and_few_are_scored_in_full(width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medvl.retrieval.vectors.FEW", 0)
    rng = np.random.default_rng(width)
    given = rng.normal(size=(8000, width)) * np.exp(rng.normal(size=width))
    space = replace(SPACE, width=width)
    index = Index.create(tmp_path / "i", space, fields=("image",), segment_rows=3000)
    cases = [Entry(f"c{i:04d}", "") for i in range(8000)]
    index.add(cases, {"image": given}, space)
    query = rng.normal(size=width)
    truth = unit(given) @ (query / np.linalg.norm(query))
    with index.reading() as view:
        for precision in ("int8", "float32"):
            for rows in (None, np.arange(0, 8000, 3), np.arange(0, 8000, 31)):
                middle, margin = view.matrices["image"].scan(query / np.linalg.norm(query), rows, precision)  # type: ignore[arg-type]
                off = np.abs(middle - (truth if rows is None else truth[rows]))
                assert (off <= margin).all()
                assert (off > margin / 100).any() or precision == "float32"
    found = search(index, query)
    assert pairs(found) == brute(given, cases, query, 10)
    assert found.n_exact < 1500


def test_search_equals_faiss(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    given = np.random.default_rng(1).normal(size=(5000, WIDTH))
    index = Index.create(tmp_path / "i", SPACE, fields=("image",))
    index.add([Entry(str(i), "") for i in range(5000)], {"image": given}, SPACE)
    flat = faiss.IndexFlatIP(WIDTH)
    flat.add(unit(given).astype(np.float32))
    queries = unit(np.random.default_rng(2).normal(size=(20, WIDTH))).astype(np.float32)
    scores, rows = flat.search(queries, 10)
    for query, theirs, cosines in zip(queries, rows, scores, strict=True):
        found = search(index, query, 10)
        assert [hit.entry.id for hit in found.hits] == [str(row) for row in theirs]
        np.testing.assert_allclose([hit.score for hit in found.hits], cosines, atol=1e-5)


def test_ties_come_by_id_however_they_were_added(precision: str | None, tmp_path: Path) -> None:
    given = vectors(40)["image"]
    given[10:30] = given[10]
    names = [f"c{i}" for i in np.random.default_rng(4).permutation(40)]
    index = Index.create(tmp_path / "i", SPACE, fields=("image",), segment_rows=9)
    index.add([Entry(name, name) for name in names], {"image": given}, SPACE)
    found = search(index, given[10], 7, precision=precision)  # type: ignore[arg-type]
    assert [hit.entry.id for hit in found.hits] == sorted(names[10:30])[:7]


def test_a_few_living_rows_among_many_excluded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DIRECT", -1)
    given = np.random.default_rng(0).normal(size=(9000, WIDTH))
    cases = [Entry(f"{i:04d}", "one" if i >= 8997 else "other") for i in range(9000)]
    index = Index.create(tmp_path / "i", SPACE, fields=("image",))
    index.add(cases, {"image": given}, SPACE)
    found = search(index, given[0], 10, exclude=Exclude(patient="other"))
    assert pairs(found) == brute(given, cases, given[0], 3, lambda e: e.patient == "one")


def test_similar_cases_leave_out_the_patient_and_duplicates(tmp_path: Path) -> None:
    cases, given = entries(40), vectors(40)
    again = replace(cases[4], id="Q/again", patient="Q", source_sha256="other")  # same words, near-equal images
    scan = replace(cases[5], id="R/renamed", patient="R", report="Other words.")  # same images under another patient
    twice = replace(cases[8], id="T/twice", patient="T", source_sha256="elsewhere")  # equals another hit
    unlike = replace(cases[4], id="U/unlike", patient="U", source_sha256="u", report="Another report.")  # near-equal, other words
    index = Index.create(tmp_path / "i", SPACE)
    index.add(cases, given, SPACE)
    extra = {name: rows[[4, 5, 8, 4]] * 3 for name, rows in given.items()}
    index.add([again, scan, twice, unlike], extra, SPACE)
    everyone = {hit.entry.id for hit in similar(index, "P2/kidney_left", 50).hits}
    assert everyone & {"P2/kidney_left", "P2/kidney_right", "Q/again", "R/renamed"} == set()
    assert "U/unlike" in everyone
    assert len(everyone & {"T/twice", "P4/kidney_left"}) == 1
    free = [h.entry.id for h in similar(index, "P2/kidney_left", 50, same_patient=True, duplicates=True).hits]
    assert {"P2/kidney_right", "Q/again", "R/renamed", "T/twice", "P4/kidney_left"} < set(free)
    assert "P2/kidney_left" not in free
    assert len(free) == 43


def test_exclusion_still_gives_k_cases(tmp_path: Path) -> None:
    given = vectors(200)
    copies = [Entry(f"c{i:03d}", f"p{i}", report="Same.", source_sha256=f"s{i}") for i in range(200)]
    for rows in given.values():
        rows[:150] = rows[0]
    index = Index.create(tmp_path / "i", SPACE)
    index.add(copies, given, SPACE)
    found = similar(index, "c000", 20)
    assert len(found.hits) == 20
    assert all(hit.score <= 1 - 1e-4 for hit in found.hits)


def test_report_to_image_asks_with_the_report(index: Index) -> None:
    cases, given = entries(300), vectors(300)
    found = similar(index, "P7/kidney_right", 5, asks="report", field="image")
    expected = brute(given["image"], cases, unit(given["report"])[15], 5, lambda e: e.patient != "P7")
    assert [i for i, _ in pairs(found)] == [i for i, _ in expected]
    np.testing.assert_allclose([s for _, s in pairs(found)], [s for _, s in expected], atol=1e-7)


def test_cases_without_a_vector_are_not_found(tmp_path: Path) -> None:
    given = vectors(20)
    given["report"][::2] = np.nan
    index = Index.create(tmp_path / "i", SPACE)
    index.add(entries(20), given, SPACE)
    found = search(index, given["image"][3], 50, field="report")
    assert {hit.entry.region for hit in found.hits} == {"kidney_right"}
    assert (found.n_cases, len(found.hits)) == (10, 10)
    with pytest.raises(ConfigError, match="has no report vector"):
        similar(index, "P0/kidney_left", asks="report")


def test_what_cannot_be_asked_is_an_error(index: Index) -> None:
    query = np.ones(WIDTH)
    for where, message in (
        ("regoin=kidney_left", "no column regoin; did you mean region"),
        ("age>=old", "age_years is a number"),
        ("sex>F", "sex is text"),
        ("finding:renal_mas", "no case in the index states renal_mas; did you mean renal_mass"),
        ("seen:cyst", "a finding is finding:KEY"),
        ("kidney", "'kidney' is no condition"),
        ('region="kidney', "No closing quotation"),
    ):
        with pytest.raises(ConfigError, match=message):
            search(index, query, where=where)
    with pytest.raises(ConfigError, match=r"the index takes \(24,\)"):
        search(index, np.ones(7))
    with pytest.raises(ConfigError, match="no direction"):
        search(index, np.zeros(WIDTH))
    with pytest.raises(ConfigError, match="no text vectors, only image, report"):
        search(index, query, field="text")
    with pytest.raises(ConfigError, match="no case P99 in the index"):
        similar(index, "P99")
    with pytest.raises(ConfigError, match="at least one"):
        search(index, query, 0)


def test_quantised_vectors_are_within_their_error() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(50, 33)) ** 3).astype(np.float32)
    rows[7] = 0
    codes, steps = quantise(rows)
    lengths = np.linalg.norm(rows.astype(np.float64) - steps[:, :1].astype(np.float64) * codes, axis=1)
    assert (lengths <= steps[:, 1]).all()
    assert steps[7].tolist() == [0, 0]
    assert np.abs(codes[:7]).max(1).tolist() == [127] * 7
