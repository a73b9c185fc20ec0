"""From scan to findings: sides, storage order, file format, and what keeps an answer undecided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import places, scan_of, upside_down

from medvl.imaging.load import load
from medvl.imaging.nifti import write_nifti
from medvl.imaging.phantom.dicom import write_dicom
from medvl.imaging.phantom.render import render
from medvl.imaging.phantom.truth import Patient
from medvl.inference.predictor import CaseResult, Predictor
from medvl.models.localiser import Place
from medvl.records import Volume


def scores(result: CaseResult) -> dict[tuple[str, str], float]:
    return {(f.finding.key, f.region): f.score for f in result.findings if f.score is not None}


def same(a: CaseResult, b: CaseResult, tolerance: float) -> None:
    """Equal scores for the same questions, at least three a region."""
    one, two = scores(a), scores(b)
    assert one.keys() == two.keys()
    assert len(one) >= 6
    for key in one:
        assert one[key] == pytest.approx(two[key], abs=tolerance), key


def read(path: Path) -> Volume:
    return next(iter(load(path))).read()


def test_dicom_and_nifti_of_one_scan_give_the_same_scores(predictor: Predictor, who: Patient, tmp_path: Path) -> None:
    volume = scan_of(who)
    write_dicom(volume, who, tmp_path / "dicom", localizer=True)
    write_nifti(volume, None, tmp_path / "scan.nii.gz")
    ways = [predictor.predict(v, explain=False) for v in (volume, read(tmp_path / "dicom"), read(tmp_path / "scan.nii.gz"))]
    same(ways[0], ways[1], 1e-3)
    same(ways[0], ways[2], 1e-3)


def test_slices_stored_feet_first_change_nothing(predictor: Predictor, who: Patient, tmp_path: Path) -> None:
    volume = scan_of(who)
    turned = upside_down(volume)
    assert {volume.geometry.axes, turned.geometry.axes} == {"SPL", "IPL"}
    for name, part in (("a", volume), ("b", turned)):
        write_nifti(part, None, tmp_path / f"{name}.nii.gz")
    a, b = (predictor.predict(read(tmp_path / f"{name}.nii.gz"), explain=False) for name in "ab")
    same(a, b, 1e-3)
    for name, region in a.regions.items():
        np.testing.assert_allclose(region.hu, b.regions[name].hu, atol=1)


def test_the_localiser_too_sees_one_patient_whatever_the_storage(loaded: Predictor, who: Patient) -> None:
    volume = scan_of(who)
    a, b = (loaded.prepare.localiser.locate(v) for v in (volume, upside_down(volume)))
    for name, place in a.items():
        np.testing.assert_allclose(place.center_lps, b[name].center_lps, atol=0.5)


def test_each_kidney_is_cut_from_its_own_side(predictor: Predictor, who: Patient) -> None:
    """Crops against phantoms painted straight on the region's grid, without any file or resampling."""
    result = predictor.predict(upside_down(scan_of(who, (5.0, 2.0, 2.5))), explain=False)
    left, right = result.regions["kidney_left"], result.regions["kidney_right"]
    assert left.geometry is not None and right.geometry is not None
    assert left.geometry.center_lps[0] > 0 > right.geometry.center_lps[0]
    for region in (left, right, result.regions["chest"]):
        painted = render(who, region.geometry, noise=False).hu.clip(-200, 300).ravel()
        fits = {flip: np.corrcoef(np.flip(region.hu.clip(-200, 300), flip).ravel(), painted)[0, 1] for flip in ((), 0, 1, 2)}
        assert fits[()] > 0.8, region.name
        assert max(fits, key=fits.__getitem__) == (), region.name


def test_heat_maps_and_evidence_lie_on_the_region(predictor: Predictor, who: Patient) -> None:
    result = predictor.predict(scan_of(who))
    shown = [f for f in result.findings if f.heat is not None]
    assert shown
    for finding in shown:
        grid = result.regions[finding.region].geometry
        assert finding.heat_geometry == grid and finding.heat is not None and finding.evidence is not None
        assert finding.heat.shape == grid.shape_dhw
        assert 0 <= finding.heat.min() <= finding.heat.max() <= 1
        d, h, w = np.unravel_index(int(finding.heat.argmax()), finding.heat.shape)
        np.testing.assert_allclose(finding.evidence.peak_lps, grid.to_lps((d, h, w)), atol=0.006)
        assert finding.evidence.before == pytest.approx(finding.score, abs=1e-4)
    assert all(f.heat is None for f in result.findings if f.verdict == "absent")


def test_a_region_nobody_found(loaded: Predictor, who: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    found = places(who)
    found["kidney_left"] = Place(found["kidney_left"].center_lps, -1.0)
    monkeypatch.setattr(loaded.prepare.localiser, "locate", lambda _volume: found)
    result = loaded.predict(scan_of(who), explain=False)
    answers = [f for f in result.findings if f.region == "kidney_left"]
    assert answers
    assert {(f.verdict, f.score, f.reasons[0].code) for f in answers} == {("undecided", None, "region_not_found")}
    assert any(f.score is not None for f in result.findings if f.region == "kidney_right")
    assert result.risk is not None
    assert "region_missing" in {r["code"] for r in result.risk["reasons"]}


def test_a_scan_that_ends_in_the_region(predictor: Predictor, who: Patient) -> None:
    """Everything below the middle of the kidneys is missing: too little of them is left, the chest is whole."""
    volume = scan_of(who)
    middle = places(who)["kidney_left"].center_lps
    keep = volume.geometry.to_lps([(k, 0, 0) for k in range(len(volume.hu))])[:, 2] > middle[2]
    first, n = int(np.flatnonzero(keep)[0]), int(keep.sum())
    part = volume.geometry.crop((first, 0, 0), (n, *volume.hu.shape[1:]))
    result = predictor.predict(Volume(volume.hu[first : first + n], part), explain=False)
    kidney = result.regions["kidney_left"]
    assert [r.code for r in kidney.reasons] == ["region_incomplete"]
    assert kidney.covered == pytest.approx(0.5, abs=0.1)
    assert {f.verdict for f in result.findings if f.region == "kidney_left"} == {"undecided"}
    assert result.regions["chest"].covered == 1.0


def test_what_is_unlike_the_training_data_is_undecided(predictor: Predictor, who: Patient) -> None:
    volume = scan_of(who)
    noise = np.random.default_rng(0).integers(-1000, 2000, volume.hu.shape).astype(np.int16)
    result = predictor.predict(Volume(noise, volume.geometry), explain=False)
    assert all(r.distance > r.limit and r.reasons[-1].code == "out_of_distribution" for r in result.regions.values())
    assert {f.verdict for f in result.findings} == {"undecided"}
    assert result.risk["value"] is None
    assert result.risk["reasons"][0]["code"] == "no_usable_region"
