"""A user's questions: no verdict without a calibration, and a new bundle that has one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import Tiny, places, scan_of

from medvl.data.cohort import PhantomCohort, build_phantom
from medvl.errors import ConfigError
from medvl.evaluation.calibration import Calibration
from medvl.evaluation.embedded import Embedded
from medvl.heads.ways import Towers
from medvl.imaging.phantom.truth import Patient
from medvl.inference.asking import Asking
from medvl.inference.embed import embed_cohort
from medvl.inference.extend import extend
from medvl.inference.predictor import Predictor
from medvl.inference.results import ResultsFolder
from medvl.models.bundle import Bundle, open_bundle, seal
from medvl.text.prompts import FindingList, load_findings

MINE = {
    "key": "lesion",
    "label": "Lesion",
    "region": "kidney",
    "truth": "renal_mass",
    "templates": ["{}.", "There is {}."],
    "present": ["a lesion of the {side} kidney", "a {side} renal mass"],
    "absent": ["no lesion of the {side} kidney", "a normal {side} kidney"],
}


@pytest.fixture(scope="module")
def bundle(tiny_run: Tiny) -> Bundle:
    return open_bundle(tiny_run.bundle)


def _listed(bundle: Bundle, **changes: Any) -> FindingList:
    """One of the bundle's calibrated findings as it is, and one of the user's."""
    own = load_findings(bundle.text("findings.yaml"))
    known = next(f for f in own.findings if f.key in bundle.values("calibration.json") and f.given is None)
    return load_findings({"name": "mine", "findings": [{**known.model_dump(), **changes}, MINE]})


@pytest.fixture(scope="module")
def validation(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    predictor = Predictor(bundle)
    cohort = build_phantom(tmp_path_factory.mktemp("validation"), PhantomCohort(21, 50, 40, 0.0), predictor.contract)
    return embed_cohort(predictor, cohort, {"cohort": "phantom seed 21", "split": "validation", "way": "crops"})


def test_only_the_same_words_have_a_verdict(bundle: Bundle, who: Patient, tmp_path: Path) -> None:
    listed = _listed(bundle)
    known = listed.findings[0]
    own, theirs = Predictor(bundle), Predictor(bundle, findings=listed, cache=tmp_path / "cache")
    for predictor in (own, theirs):
        predictor.prepare.localiser.locate = lambda _volume: places(who)  # type: ignore[method-assign]
    volume = scan_of(who)
    expected = {f.region: f for f in own.predict(volume, explain=False).findings if f.finding.key == known.key}
    result = theirs.predict(volume, explain=True)
    for answer in result.findings:
        if answer.finding.key == known.key:
            assert answer.score == pytest.approx(expected[answer.region].score, abs=1e-5)
            assert answer.spread is not None and 0 <= answer.spread.low <= answer.spread.high <= 1
        else:
            assert (answer.verdict, answer.score, answer.calibration, answer.heat) == ("undecided", None, None, None)
            assert answer.reasons[-1].code == "not_calibrated"
            assert answer.margin is not None and answer.percentile is not None and 0 <= answer.percentile <= 100
    assert {f.finding.key for f in result.findings} == {known.key, "lesion"}
    reworded = _listed(bundle, present=("something else",))
    assert Predictor(bundle, findings=reworded).calibration == {}
    folder = ResultsFolder(tmp_path / "out", theirs.asked)
    told = folder.record("0" * 12, bundle, "done", [], None, result)
    assert json.loads(json.dumps(told, allow_nan=False))["asked"]["name"] == "mine"
    raw = next(f for f in told["findings"] if f["finding"] == "lesion")
    assert (raw["calibrated"], raw["threshold"], raw["score"], raw["interval"]) == (False, None, None, None)


def test_prompts_are_embedded_once_for_all_runs(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = _listed(bundle)
    first = Predictor(bundle, findings=listed, cache=tmp_path).answering
    assert isinstance(first, Towers)
    expected = first.bank["lesion@kidney_left"]
    again = Predictor(bundle, findings=listed, cache=tmp_path).answering
    assert isinstance(again, Towers)
    monkeypatch.setattr(type(again.system.clip.text), "embed", lambda *_, **__: pytest.fail("a prompt was embedded again"))
    np.testing.assert_allclose(again.bank["lesion@kidney_left"], expected, atol=1e-6)
    others = list(tmp_path.rglob("*.safetensors"))
    assert others
    with pytest.raises(pytest.fail.Exception):
        again.embed_texts(["a report is never kept"])
    assert list(tmp_path.rglob("*.safetensors")) == others


def test_paraphrases_beyond_the_limit_withhold_the_verdict(bundle: Bundle, validation: Embedded) -> None:
    predictor = Predictor(bundle)
    asking: Asking = replace(predictor.asking, limits=dict.fromkeys(predictor.calibration, -1.0))
    region = "kidney_left"
    row = int(np.flatnonzero(validation.usable & np.asarray(validation.rows["region"] == region))[0])
    import torch

    answers = torch.from_numpy(validation.embedding[row])
    scored = asking.score(region, answers, spreads=False)
    from medvl.inference.predictor import RegionResult

    usable = RegionResult(region, None, "mask", None, 1.0, 0.5, 1.0, (), answers=answers)
    codes = set()
    for finding in asking.answering.asked(region):
        if finding.key in asking.calibration and finding.key in scored.spreads:
            answer = asking.answer(finding, usable, scored)
            assert answer.verdict == "undecided"
            codes.add(answer.reasons[0].code)
    assert codes <= {"paraphrases_disagree", "near_threshold"} and "paraphrases_disagree" in codes


def test_a_list_is_calibrated_into_a_new_bundle(bundle: Bundle, validation: Embedded, tmp_path: Path) -> None:
    listed = load_findings({"name": "mine", "findings": [MINE]})
    made = extend(bundle, listed, validation, tmp_path / "new")
    new = open_bundle(tmp_path / "new")
    assert new.sha256 == made.bundle.sha256 != bundle.sha256
    fit = made.fitted.calibrations["lesion"]
    column = validation.column("renal_mass")
    said = validation.said[validation.usable & np.asarray(validation.rows["kind"] == "kidney"), column]
    assert (fit.n_present, fit.n_absent) == (int((said == 1).sum()), int((said == 0).sum()))
    before, after = Predictor(bundle), Predictor(new)
    assert {**before.calibration, "lesion": fit} == after.calibration
    assert "lesion@kidney_left" in new.tensors("bank.safetensors")
    assert [f.key for f in after.findings.findings] == [*(f.key for f in before.findings.findings), "lesion"]
    assert new.values("metrics.json")["calibrated"][0]["from"] == bundle.sha256


def test_the_same_list_calibrated_anew_brings_an_older_bundle_up_to_date(
    bundle: Bundle, validation: Embedded, tmp_path: Path
) -> None:
    folder = tmp_path / "old"
    shutil.copytree(bundle.folder, folder)
    for name in ("reference.safetensors", "paraphrases.json"):
        (folder / name).unlink(missing_ok=True)
    own = load_findings(bundle.text("findings.yaml"))
    coded = {"scheme": "SCT", "value": "64033007", "meaning": "Kidney"}
    listed = load_findings({"name": own.name, "findings": [{**f.model_dump(), "site": coded} for f in own.findings]})
    old = seal(folder, "old", "tests")
    made = extend(old, listed, replace(validation, source={**validation.source, "model_sha256": old.sha256}), tmp_path / "new")
    new = made.bundle
    assert load_findings(new.text("findings.yaml")) == listed
    kept = new.tensors("reference.safetensors")
    for region in ("kidney_left", "kidney_right", "chest"):
        rows = validation.embedding[validation.usable & np.asarray(validation.rows["region"] == region)]
        np.testing.assert_array_equal(np.sort(kept[region].numpy(), 0), np.sort(rows.astype(np.float16).astype(np.float32), 0))
    assert set(new.values("paraphrases.json")["limits"]) == set(made.fitted.limits) == set(made.fitted.calibrations)
    written = new.values("calibration.json")
    assert {key: Calibration(**written[key]) for key in made.fitted.calibrations} == made.fitted.calibrations
    assert any(c.covariance is not None for c in made.fitted.calibrations.values())  # a slope held above zero has none
    for key, value in made.fitted.auroc.items():
        assert new.text("README.md").count(f"| {key} |") == 1
        assert f"| {key} | {value:.3f} |" in new.text("README.md")
    weights = [(b.folder / "weights.safetensors").read_bytes() for b in (bundle, new)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("split", ["test", "train", ""])
def test_only_validation_patients_calibrate(bundle: Bundle, validation: Embedded, tmp_path: Path, split: str) -> None:
    cohort = replace(validation, source={**validation.source, "split": split})
    with pytest.raises(ConfigError, match="validation patients only"):
        extend(bundle, load_findings({"name": "mine", "findings": [MINE]}), cohort, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_nobody_can_label_or_know_is_refused(bundle: Bundle, validation: Embedded, tmp_path: Path) -> None:
    unknown = load_findings({"name": "mine", "findings": [{**MINE, "truth": "renal_mas"}]})
    with pytest.raises(ConfigError, match=r"no rules read renal_mas.*did you mean renal_mass"):
        extend(bundle, unknown, validation, tmp_path / "new")
    with pytest.raises(ConfigError, match="knows no truth of renal_mas"):
        extend(bundle, unknown, validation, tmp_path / "new", against="truth")
    other = replace(validation, source={**validation.source, "model_sha256": "0"})
    with pytest.raises(ConfigError, match="another bundle"):
        extend(bundle, load_findings({"name": "mine", "findings": [MINE]}), other, tmp_path / "new")
