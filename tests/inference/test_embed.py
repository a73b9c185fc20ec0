"""The table of a cohort: crops and scans of the same phantoms agree, and what cannot be read says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import Tiny

from medvl.data.cohort import PhantomCohort, build_phantom
from medvl.errors import ConfigError
from medvl.evaluation.embedded import Embedded
from medvl.imaging.phantom.render import region_centers
from medvl.imaging.phantom.sample import sample_patient
from medvl.inference.embed import embed_cohort, embed_phantoms
from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle
from medvl.models.localiser import Place

WHICH = PhantomCohort(21, 3, 3, 0.0)
SOURCE = {"cohort": "phantom seed 21", "split": "validation"}


@pytest.fixture(scope="module")
def mine(tiny_run: Tiny) -> Predictor:
    return Predictor(open_bundle(tiny_run.bundle))


@pytest.fixture(scope="module")
def crops(mine: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    cohort = build_phantom(tmp_path_factory.mktemp("crops"), WHICH, mine.contract)
    return embed_cohort(mine, cohort, {**SOURCE, "way": "crops"})


def test_crops_are_read_asked_and_set_beside_their_reports(mine: Predictor, crops: Embedded, tmp_path: Path) -> None:
    assert len(crops) == 9 and len(crops.patients) == 3
    good = crops.usable
    assert good.any()
    for vectors in (crops.embedding[good], crops.report_embedding[crops.rows["report"] != ""]):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert np.isnan(crops.embedding[~good]).all() and np.isnan(crops.margins[~good]).all()
    row = int(np.flatnonzero(good & np.asarray(crops.rows["region"] == "kidney_left"))[0])
    pair = mine.bundle.tensors("bank.safetensors")["renal_mass@kidney_left"].numpy()
    null = mine.answering.prior["kidney_left"].numpy() if "prior.safetensors" in mine.bundle else 0.0
    assert crops.margins[row, crops.column("renal_mass")] == pytest.approx(
        float((crops.embedding[row] - null) @ (pair[0] - pair[1])), abs=1e-5
    )
    assert np.isnan(crops.margins[row, crops.column("cardiomegaly")])
    assert set(np.unique(crops.truth)) <= {-1, 0, 1} and (crops.truth[row] >= 0).any()
    crops.save(tmp_path)
    again = Embedded.load(tmp_path)
    np.testing.assert_array_equal(again.margins, crops.margins)
    assert again.source["model_sha256"] == mine.bundle.sha256


def test_scans_and_crops_of_a_phantom_agree(mine: Predictor, crops: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    patients = iter([sample_patient(21, number) for number in range(3, 6)])
    monkeypatch.setattr(
        mine.prepare.localiser, "locate", lambda _: {k: Place(c, 0.9) for k, c in region_centers(next(patients)).items()}
    )
    scans = embed_phantoms(mine, WHICH, {**SOURCE, "way": "scans"})
    assert list(scans.rows["region"]) != [] and scans.evidence is not None
    key = ["patient_id", "region"]
    places = {tuple(k): i for i, k in enumerate(scans.rows[key].to_numpy().tolist())}
    compared = 0
    for i, who in enumerate(crops.rows[key].to_numpy().tolist()):
        j = places[tuple(who)]
        np.testing.assert_array_equal(crops.said[i], scans.said[j])
        np.testing.assert_array_equal(crops.truth[i], scans.truth[j])
        if crops.usable[i] and scans.usable[j]:
            compared += 1
            assert float(crops.embedding[i] @ scans.embedding[j]) > 0.95
    assert compared >= 3
    assert len(scans.evidence) and scans.evidence["control"].notna().any()
    for told in scans.evidence.itertuples():
        margin = scans.margins[places[told.patient_id, told.region], scans.column(told.finding)]
        if told.finding in mine.calibration:
            assert told.before == pytest.approx(
                float(mine.calibration[told.finding].probability(np.array([margin]))[0]), abs=0.02
            )
        else:
            assert np.isnan([told.before, told.after, told.control]).all()
        assert told.near or not told.hit
    lost = scans.rows[scans.rows["reason"] != ""]
    assert set(lost["reason"]) <= {"region_incomplete", "region_not_found", "out_of_distribution"}
    assert np.isnan(scans.embedding[~scans.usable]).all()


def test_given_labels_are_truth_and_those_of_rules_are_not(mine: Predictor, tmp_path: Path) -> None:
    cohort = build_phantom(tmp_path, PhantomCohort(21, 3, 1, 0.0), mine.contract)
    read = {"renal_mass": 1, "mass_cystic": 1, "renal_stone": 0}
    case = {**cohort.cases[0], "truth": {"age_years": 61.0}, "labels": {**cohort.cases[0]["labels"], "kidney_left": read}}
    by_table = {**case, "label_sources": {"kidney_left": {"renal_stone": "csv", "mass_cystic": "review"}}}
    unsure = {**by_table, "labels": {**case["labels"], "kidney_left": {**read, "renal_mass": 2, "renal_stone": 2}}}
    several = replace(
        cohort, hu=np.repeat(cohort.hu, 3, 0), covered=np.repeat(cohort.covered, 3, 0), cases=[case, by_table, unsure]
    )
    table = embed_cohort(mine, several, SOURCE)
    rows = np.flatnonzero(table.rows["region"] == "kidney_left")
    keys = np.array(table.findings)
    known = [{str(keys[j]): int(table.truth[i, j]) for j in np.flatnonzero(table.truth[i] >= 0)} for i in rows]
    assert known == [{}, {"renal_stone": 0, "mass_cystic": 1}, {}]
    assert (table.said[rows[:2], table.column("mass_cystic")] == 1).all()
    assert (np.delete(table.truth, rows, axis=0) == -1).all()


def test_another_grid_is_refused(mine: Predictor, tmp_path: Path) -> None:
    cohort = build_phantom(tmp_path, PhantomCohort(21, 3, 1, 0.0), mine.contract)
    with pytest.raises(ConfigError, match="the bundle takes"):
        embed_cohort(mine, replace(cohort, hu=cohort.hu[..., :-1]), SOURCE)
