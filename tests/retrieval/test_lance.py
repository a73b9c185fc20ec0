"""LanceDB behind the same interface gives what the embedded index gives, up to float32 rounding."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases import SPACE, built, entries, vectors

from medvl.errors import ConfigError
from medvl.retrieval.lance import LanceIndex
from medvl.retrieval.search import Exclude, search

pytest.importorskip("lancedb")
WHERE = (
    "",
    "region=kidney_left age>=60",
    "phase!=arterial",
    "finding:renal_mass absent:cyst",
    "unstated:cyst sex=F,M",
    "age!=60",
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_lance_equals_the_embedded_index(tmp_path: Path) -> None:
    cases, given = entries(300), vectors(300)
    given["report"][7] = np.nan
    index = built(tmp_path / "i")
    index.add([cases[7]], {name: rows[7:8] for name, rows in given.items()}, SPACE, replace=True)
    lance = LanceIndex(tmp_path / "l", SPACE)
    assert lance.add(cases, given, SPACE) == len(lance) == 300
    for where in WHERE:
        for field in ("image", "report"):
            ours = search(index, given["image"][40], 20, field=field, where=where, exclude=Exclude(patient="P2"))
            theirs = lance.search(given["image"][40], 20, field=field, where=where, exclude_patient="P2")
            assert [hit.entry for hit in theirs.hits] == [hit.entry for hit in ours.hits]
            np.testing.assert_allclose([h.score for h in theirs.hits], [h.score for h in ours.hits], atol=1e-6)
            assert (theirs.n_cases, theirs.n_searched) == (ours.n_cases, ours.n_searched)
    assert lance.search(given["image"][40], where="phase=delayed").n_searched == 0
    with pytest.raises(ConfigError, match="has phase venus; did you mean venous"):
        lance.search(given["image"][40], where="phase=arterial,venus")
    with pytest.raises(ConfigError, match="1 of 1 cases are in the index already"):
        lance.add(cases[:1], {name: rows[:1] for name, rows in given.items()}, SPACE)
    with pytest.raises(ConfigError, match="mean nothing"):
        LanceIndex(tmp_path / "l", replace(SPACE, model_sha256="c" * 64))
    assert lance.delete(patients=["P3"], ids=["P4/kidney_left"]) == 3
    lance.compact()
    assert len(LanceIndex(tmp_path / "l", SPACE)) == 297
