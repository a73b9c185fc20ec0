"""One person under two names of an index is left out under both, and what links cannot tell is counted."""

from dataclasses import replace
from pathlib import Path

import pytest
from cases import SPACE, entries, vectors

from medvl.data.person import Likeness, person_of
from medvl.retrieval.people import People, people_of
from medvl.retrieval.search import similar
from medvl.retrieval.store import Index
from medvl_pipelines import search

KEY, OTHER = b"k" * 32, b"o" * 32
LINKS = {
    "P0": person_of(KEY, "H0"),
    "P1": person_of(KEY, "H1", "STUDY-1"),
    "P2": person_of(KEY, "H0"),
    "P3": person_of(OTHER, "H0"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six patients: P0 and P2 are one person, P3 has the link of another key, P4 no number, P5 no link, one case no patient."""
    links = {**LINKS, "P4": person_of(KEY, "ANONYMOUS")}
    cases = [replace(e, extra={**e.extra, **({"person": links[e.patient]} if e.patient in links else {})}) for e in entries(12)]
    with Index.create(tmp_path / "index", SPACE) as index:
        given = vectors(13)
        index.add([*cases, replace(cases[-1], id="nobody", patient="")], given, SPACE)
        index.delete(patients=["P1"])
    return tmp_path / "index"


def test_people_are_counted_by_what_is_known_of_them(folder: Path) -> None:
    with Index.open(folder) as index, index.reading() as view:
        unknown = {Likeness.no_link: 2, Likeness.other_key: 1, Likeness.no_number: 1}
        assert people_of(view, person_of(KEY, "H0", "STUDY-9")) == People(("P0", "P2"), 6, unknown)
        assert people_of(view, "") == People((), 6, {Likeness.no_link: 6})


def test_search_leaves_out_the_person_under_every_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Index.open(folder) as index:
        found = {hit.entry.patient for hit in similar(index, "P0/kidney_left", 20, duplicates=True).hits}
        assert found == {"P3", "P4", "P5", ""}
        assert "P2" in {hit.entry.patient for hit in similar(index, "P0/kidney_left", 20, same_patient=True).hits}
    assert search.run(folder, like="P0/kidney_left") == 0
    told = capsys.readouterr().out
    assert "the other cases of patient P0, under 2 names; whether any of 4 other names is this patient too, no link tells" in told
    assert search.run(folder, like="P5/kidney_left") == 0
    assert "the other cases of patient P5; whether any of 5 other names" in capsys.readouterr().out
    assert search.run(folder, like="P5/kidney_left", everything=True) == 0
    assert "Left out" not in capsys.readouterr().out
