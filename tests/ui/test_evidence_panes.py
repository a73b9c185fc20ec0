"""Finding and prognosis panes: what is said of full, partial and missing records."""

from pathlib import Path

import numpy as np
import pytest
from evidence_studies import (
    CASE,
    PretendBundle,
    full_finding,
    pane,
    readings,
    said,
    survival_model,
    unit,
    write_full,
)
from results_folder import finding, study_json, write_study

from medvl_ui.charts import predicted
from medvl_ui.evidence_words import deletion_words, doubts
from medvl_ui.study import DeletionRecord, FindingRecord, RegionRecord


def test_a_full_finding_says_interval_spread_percentile_and_doubts(tmp_path: Path, monkeypatch) -> None:
    write_full(tmp_path)
    told = said(readings(tmp_path, monkeypatch))
    assert "95 % interval 0.44 to 0.68" in told
    assert "0.31 to 0.82 (95 % of wordings, SD 0.12); 22 % give the other answer" in told
    assert "Higher than in 83 % of the reference regions of the left kidney." in told
    assert "from 0.57 to 0.21; removing as much elsewhere, to 0.55. The score rests on this place." in told
    assert "**Depends on the wording.** 22% of other wordings" in told
    assert "**Calibration.** Its interval, 0.44 to 0.68, holds the threshold 0.50" in told


def test_missing_fields_are_said_to_be_missing(tmp_path: Path, monkeypatch) -> None:
    write_study(tmp_path, study_json(CASE, findings=[finding("cyst", "kidney_left", 0.9, "present")]))
    told = said(readings(tmp_path, monkeypatch))
    assert "No interval: the bundle was calibrated without one." in told
    assert "No spread over wordings was recorded." in told
    assert "No reference regions to compare with." in told
    assert "Nothing on record speaks against this verdict" not in told  # the region is out of distribution
    assert "trained for no survival endpoint" in said(pane(readings(tmp_path, monkeypatch), "Prognosis"))


def test_an_answer_without_calibration_shows_its_margin(tmp_path: Path, monkeypatch) -> None:
    reason = [{"code": "not_calibrated", "message": "the bundle holds no calibration for this question"}]
    bare = finding("gas", "kidney_left", None, "undecided", calibrated=False, reasons=reason, margin=-0.31, percentile=12.0)
    write_study(tmp_path, study_json(CASE, findings=[bare]))
    told = said(readings(tmp_path, monkeypatch))
    assert "Margin -0.31, which is no probability. Higher than in 12 %" in told
    assert "**Not calibrated.**" in told


@pytest.mark.parametrize(
    ("after", "control", "words"),
    [
        (0.2, 0.85, "rests on this place"),
        (0.88, 0.9, "does not show"),
        (0.6, 0.55, "does not show"),
        (0.99, 0.9, "rises"),
        (0.3, None, "rests on this place"),
    ],
)
def test_deletion_is_judged_against_its_control(after: float, control: float | None, words: str) -> None:
    assert words in deletion_words(DeletionRecord(before=0.9, after=after, control=control))


def test_no_deletion_test_is_said() -> None:
    assert deletion_words(None) == "No deletion test was made."


def test_a_present_finding_is_doubted_for_what_its_record_holds() -> None:
    record = full_finding(verdict="present", reasons=[], deletion={"before": 0.57, "after": 0.56, "control": 0.55})
    near = RegionRecord.model_validate(
        {"name": "kidney_left", "covered": 0.8, "ood": {"distance": 3.3, "limit": 3.4, "out": False}}
    )
    titles = [title for title, _ in doubts(FindingRecord.model_validate(record), near)]
    assert titles == ["Calibration", "Wording", "Evidence map", "Unfamiliar image", "Region incomplete"]
    calm = FindingRecord.model_validate(finding("cyst", "kidney_left", 0.97, "present", threshold=0.5, interval=[0.9, 0.99]))
    assert doubts(calm, RegionRecord(name="kidney_left", covered=1.0)) == []


def test_prognosis_without_a_bundle_shows_what_was_recorded(tmp_path: Path, monkeypatch) -> None:
    study = write_full(tmp_path)
    at = pane(readings(tmp_path, monkeypatch), "Prognosis")
    told = said(at)
    assert "Higher predicted risk than" in told
    assert f"{100 * study['risk']['survival']['365']:.0f} % predicted at 1 year" in told
    assert "made before intervals were kept" in told
    assert "Start the viewer with --bundle NAME" in told
    assert not at.number_input


def test_a_recorded_interval_is_told_and_drawn_as_a_band(tmp_path: Path, monkeypatch) -> None:
    study = write_full(tmp_path / "without")
    ends = {day: [max(share - 0.11, 0), min(share + 0.07, 1)] for day, share in study["risk"]["survival"].items()}
    write_full(tmp_path / "with", risk=study["risk"] | {"interval": ends})
    at = pane(readings(tmp_path / "with", monkeypatch), "Prognosis")
    told = said(at)
    low, high = ends["365"]
    assert f"({100 * low:.0f} to {100 * high:.0f} %) predicted at 1 year" in told
    assert "95 % interval" in told
    assert "made before intervals were kept" not in told
    curve = {float(day): share for day, share in study["risk"]["survival"].items()}
    limits = {float(day): (low, high) for day, (low, high) in ends.items()}
    drawn = predicted({"this patient": curve}, ["this patient"], {"this patient": limits}).to_dict()
    band = [layer["data"]["values"] for layer in drawn["layer"] if layer["mark"]["type"] == "area"]
    assert [len(values) for values in band] == [4]
    assert band[0][0] == {"who": "this patient", "years": 0.0, "low": 1.0, "high": 1.0}


def test_another_age_is_worked_out_by_the_model(tmp_path: Path, monkeypatch) -> None:
    model = survival_model()
    study = write_full(tmp_path)
    at = pane(readings(tmp_path, monkeypatch, bundle=PretendBundle(survival=model)), "Prognosis")
    at.number_input[0].set_value(80.0).run()
    told = said(at)
    risk = study["risk"]["value"] + (80.0 - 60.0) / 10.0 * 0.4  # the age's weight by hand
    above = 100 * float(np.mean(model.reference < risk))
    assert f"At 80 years: higher risk than {above:.0f} %" in told
    assert f"log hazard {risk:+.2f} (recorded: {study['risk']['value']:+.2f})" in told
    assert "+0.00  age (not known: the average)" in told


def test_a_known_age_is_part_of_what_the_risk_is_made_of(tmp_path: Path, monkeypatch) -> None:
    write_full(tmp_path, age_years=75.0)
    told = said(pane(readings(tmp_path, monkeypatch, bundle=PretendBundle(survival=survival_model())), "Prognosis"))
    assert "+0.60  age" in told


def test_other_bundles_and_vectors_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch) -> None:
    study = write_full(tmp_path / "a")
    strange = PretendBundle("ab" * 32, survival_model())
    assert "another bundle" in said(pane(readings(tmp_path / "a", monkeypatch, bundle=strange), "Prognosis"))
    wrong = write_full(tmp_path / "b", risk=study["risk"] | {"value": 3.0})
    told = said(pane(readings(tmp_path / "b", monkeypatch, bundle=PretendBundle(survival=survival_model())), "Prognosis"))
    assert wrong["risk"]["value"] == 3.0
    assert "do not give the recorded risk" in told
    write_full(tmp_path / "c", vectors=False)
    told = said(pane(readings(tmp_path / "c", monkeypatch, bundle=PretendBundle(survival=survival_model())), "Prognosis"))
    assert "hold no embeddings" in told
    assert unit(1).shape == (24,)
