"""The ten tasks on made-up lesions: learned where labels tell, refused where they do not, nothing of test in any choice."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pretend_lesions import LABELS, cohorts
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from sksurv.metrics import concordance_index_censored

from medvl.errors import ConfigError
from medvl.heads.lesions import lesions, only, single_scans
from medvl.heads.task_heads import Known, fit_head
from medvl.heads.task_list import TenTasks, load_ten_tasks
from medvl.heads.ten_tasks import run_ten_tasks

BUILT_IN = Path(__file__).parents[2] / "configs" / "protocols" / "ten-tasks.yaml"


def _protocol(**changes: Any) -> TenTasks:
    small = {"draws": 100, "fractions": (0.1, 1.0), "seeds": (0, 1)}
    return TenTasks.model_validate({**load_ten_tasks(BUILT_IN).model_dump(), **small, **changes})


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    return run_ten_tasks(_protocol(), cohorts(), LABELS)


def test_each_task_is_learned_or_refused_by_its_own_labels(told: dict[str, Any]) -> None:
    tasks = told["tasks"]
    assert list(tasks) == ["R", "E", "N", "A", "L", "malignancy", "aggressiveness", "OS", "DSS", "RFS"]
    assert tasks["R"]["image"]["quadratic kappa"]["ci"][0] > 0.5
    assert tasks["malignancy"]["image"]["AUROC"]["ci"][0] > 0.7
    assert tasks["OS"]["image"]["Harrell's C"]["ci"][0] > 0.65
    assert "no column mass_growth" in tasks["E"]["na"]
    assert "two classes of 10 and 10 are needed" in tasks["A"]["na"]
    assert "no column aggressiveness" in tasks["aggressiveness"]["na"]
    assert "10 are needed" in tasks["DSS"]["na"]
    assert "no column rfs_days, rfs_event" in tasks["RFS"]["na"]


def test_a_class_nobody_has_is_left_out_and_told(told: dict[str, Any]) -> None:
    polar = told["tasks"]["L"]
    assert polar["classes"] == ["outside", "between"]
    assert polar["left_out"] == {"crosses": {"train": 0, "validation": 0, "test": 0}}


def test_every_lesion_is_counted_once(told: dict[str, Any]) -> None:
    part = told["cohort"]["test"]
    assert part["labelled"] == 110 + 22
    assert part["read"] + sum(part["not_read"].values()) == part["labelled"]
    for name in ("R", "malignancy"):
        task = told["tasks"][name]
        assert task["image"]["n"] + sum(task["excluded"]["test"].values()) == part["labelled"]
    assert told["tasks"]["malignancy"]["excluded"]["test"]["label not known"] > 0
    outcomes = LABELS[LABELS["patient_id"].between("P2000", "P2999")].drop_duplicates("patient_id")
    assert told["tasks"]["OS"]["image"]["patients"] == told["tasks"]["OS"]["image"]["n"] <= outcomes["os_days"].notna().sum()


def test_baselines_stand_beside_but_not_what_a_label_is_made_of(told: dict[str, Any]) -> None:
    assert set(told["tasks"]["R"]["beside"]) == {"clinical", "image and clinical"}
    beside = told["tasks"]["malignancy"]["beside"]
    assert beside["clinical"]["columns"] == ["age_years", "sex"]
    assert beside["size"]["AUROC"]["value"] > 0.8
    assert beside["clinical"]["AUROC"]["value"] < 0.65
    gain = told["tasks"]["malignancy"]["difference"]["clinical"]
    image = told["tasks"]["malignancy"]["image"]["AUROC"]["value"]
    assert gain["value"] == pytest.approx(image - beside["clinical"]["AUROC"]["value"], abs=1e-4)
    assert gain["low"] > 0


def test_numbers_are_those_of_other_libraries() -> None:
    protocol = _protocol()
    parts = {name: lesions(found, LABELS, "kidney", "embedding") for name, found in cohorts().items()}
    names = list(protocol.tasks[0].classes)  # type: ignore[union-attr]
    y = {k: p.table["renal_radius"].map(names.index).to_numpy() for k, p in parts.items()}
    known = {k: Known(p.x, p.unit, y[k], p.table["patient_id"].to_numpy(str), 3) for k, p in parts.items()}
    head = fit_head("ordinal", known["train"], known["validation"])
    scores = head.scores(known["test"])
    assert head.decide is not None
    assert head.chances is not None
    told = run_ten_tasks(protocol, cohorts(), LABELS, curve=False)["tasks"]
    found = told["R"]["image"]
    kappa = cohen_kappa_score(y["test"], head.decide(scores), weights="quadratic")
    assert found["quadratic kappa"]["value"] == pytest.approx(kappa, abs=1e-4)
    assert found["AUROC"]["value"] == pytest.approx(roc_auc_score(y["test"], head.chances(scores), multi_class="ovr"), abs=1e-4)


def test_concordance_is_by_patient_and_that_of_scikit_survival() -> None:
    made = cohorts()
    told = run_ten_tasks(
        _protocol(tasks=[{"type": "survival", "name": "OS", "time": "os_days", "event": "os_event"}]), made, LABELS
    )
    part = {name: lesions(found, LABELS, "kidney", "embedding") for name, found in made.items()}
    known = {}
    for name, p in part.items():
        fine = only(p, p.table["os_days"].notna().to_numpy())
        who, code = np.unique(fine.table["patient_id"], return_inverse=True)
        first = fine.table.drop_duplicates("patient_id").sort_values("patient_id")
        y = first[["os_days", "os_event"]].to_numpy(float)
        known[name] = Known(fine.x, code[fine.unit], y, who.astype(str), 0)
    risk = fit_head("survival", known["train"], known["validation"]).scores(known["test"])[:, 0]
    time, event = known["test"].y.T
    expected = concordance_index_censored(event.astype(bool), time, risk)[0]
    assert told["tasks"]["OS"]["image"]["Harrell's C"]["value"] == pytest.approx(expected, abs=1e-4)


def test_test_labels_move_no_penalty_and_no_threshold(told: dict[str, Any]) -> None:
    shuffled = LABELS.copy()
    mine = shuffled["patient_id"] >= "P2000"
    rng = np.random.default_rng(0)
    for column in ("renal_radius", "malignancy"):
        shuffled.loc[mine, column] = rng.permutation(shuffled.loc[mine, column].to_numpy())
    again = run_ten_tasks(_protocol(), cohorts(), shuffled, curve=False)
    for name in ("R", "malignancy"):
        assert again["tasks"][name]["head"] == told["tasks"][name]["head"]
        assert again["tasks"][name]["image"] != told["tasks"][name]["image"]


def test_the_curve_rises_to_the_whole(told: dict[str, Any]) -> None:
    few, everyone = told["tasks"]["R"]["curve"]
    assert few["patients"] == 21
    assert few["value"] < everyone["value"]
    assert everyone["value"] == pytest.approx(told["tasks"]["R"]["image"]["quadratic kappa"]["value"], abs=1e-4)


def test_phases_are_fused_and_beat_one_of_them() -> None:
    several = run_ten_tasks(_protocol(), cohorts("arterial", "portal_venous", "delayed", noise=1.5), LABELS, curve=False)
    found = several["tasks"]["R"]["phases"]
    assert found["with_several"] == found["single"]["n"]
    assert found["fused_minus_single"]["value"] > 0.05
    assert several["tasks"]["malignancy"]["phases"]["fused_minus_single"]["value"] > 0


def test_one_scan_is_no_fusion(told: dict[str, Any]) -> None:
    assert told["tasks"]["R"]["phases"] == {"na": "every lesion has a single scan"}


def test_the_single_scan_is_the_preferred_phase() -> None:
    part = lesions(cohorts("delayed", "arterial")["test"], LABELS, "kidney", "embedding")
    assert set(single_scans(part, ("arterial", "delayed")).phase) == {"arterial"}
    assert set(single_scans(part, ("delayed",)).phase) == {"delayed"}
    assert set(single_scans(part, ()).phase) == {"delayed"}


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (LABELS.drop(columns="region"), "several regions"),
        (LABELS.drop(columns="patient_id"), "no column patient_id"),
        (pd.concat([LABELS, LABELS[:1]]), "stands twice"),
        (LABELS.drop_duplicates("patient_id").assign(region="chest"), "was read; do patient_id and region match"),
    ],
)
def test_tables_that_do_not_fit_are_refused(labels: pd.DataFrame, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run_ten_tasks(_protocol(), cohorts(), labels)


def test_patients_in_two_splits_are_refused() -> None:
    made = cohorts()
    with pytest.raises(ConfigError, match="is in train and in test"):
        run_ten_tasks(_protocol(), made | {"test": made["train"]}, LABELS)
    with pytest.raises(ConfigError, match="no validation cohort"):
        run_ten_tasks(_protocol(), {k: v for k, v in made.items() if k != "validation"}, LABELS)


def test_a_second_encoder_stands_beside_on_the_same_lesions(told: dict[str, Any]) -> None:
    noisy = cohorts(noise=6.0)
    beside = run_ten_tasks(_protocol(), cohorts(), LABELS, second=noisy, curve=False)["tasks"]["R"]
    alone = run_ten_tasks(_protocol(), noisy, LABELS, curve=False)["tasks"]["R"]["image"]
    assert beside["beside"]["second"] == alone
    assert beside["image"] == told["tasks"]["R"]["image"]
    apart = beside["difference"]["second"]
    assert apart["value"] == pytest.approx(
        beside["image"]["quadratic kappa"]["value"] - alone["quadratic kappa"]["value"], abs=2e-4
    )
    assert apart["low"] > 0
    assert apart["n"] == alone["n"]


def test_the_difference_is_of_lesions_that_both_encoders_read() -> None:
    other = cohorts(noise=6.0)
    test = other["test"][0]
    other["test"] = [test.take(np.arange(60, len(test)))]
    found = run_ten_tasks(_protocol(), cohorts(), LABELS, second=other, curve=False)["tasks"]
    for name in ("R", "OS"):
        assert found[name]["difference"]["second"]["n"] == found[name]["beside"]["second"]["n"] < found[name]["image"]["n"]
    few = other | {"test": [test.take(np.arange(12))]}
    found = run_ten_tasks(_protocol(), cohorts(), LABELS, second=few, curve=False)["tasks"]
    assert "are needed" in found["R"]["beside"]["second"]["na"]
    assert "second" not in found["R"]["difference"]


def test_endpoints_never_share_an_event(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "name: x\ntasks:\n- {type: survival, name: OS, time: t, event: e}\n- {type: survival, name: DSS, time: t, event: e}\n"
    )
    with pytest.raises(ConfigError, match="events of their own"):
        load_ten_tasks(bad)
    with pytest.raises(ConfigError, match="not a list of downstream tasks"):
        load_ten_tasks(tmp_path / "none.yaml")
