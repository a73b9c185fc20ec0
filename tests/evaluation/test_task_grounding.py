"""Grounding of a protocol: deletion tests are paired by lesion and resampled by patient, and what is missing is said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pretend import PROTOCOL, cohort, model
from scipy.stats import norm

from medvl.evaluation.embedded import Embedded
from medvl.evaluation.intervals import Draws
from medvl.evaluation.protocol import load_protocol
from medvl.evaluation.report.build import document
from medvl.evaluation.report.markdown import write_markdown
from medvl.evaluation.results import Subject, evaluate
from medvl.evaluation.task_grounding import DELETION, deletion


def lesions(n: int = 60) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Two lesions a patient with falls at the peak and elsewhere, and one more without room for a control."""
    rng = np.random.default_rng(2)
    before, peak, other = rng.random(n), rng.normal(0.3, 0.1, n), rng.normal(0.05, 0.1, n)
    frame = pd.DataFrame(
        {"patient_id": [f"p{i // 2}" for i in range(n)], "before": before, "after": before - peak, "control": before - other}
    )
    alone = pd.DataFrame([{"patient_id": "p99", "before": 0.9, "after": 0.1, "control": np.nan}])
    return pd.concat([frame, alone], ignore_index=True), peak, other


def told(table: Embedded) -> dict[str, Any]:
    return evaluate(load_protocol(PROTOCOL), Subject(model(), table))


def test_deletions_are_paired_by_lesion_and_resampled_by_patient() -> None:
    frame, peak, other = lesions()
    found = deletion(frame, Draws(frame["patient_id"].unique(), 2000, 0), 5)
    assert (found["n"], found["n_without"]) == (60, 1)
    assert found["at_peak"]["value"] == pytest.approx(peak.mean(), abs=1e-4)
    assert found["elsewhere"]["value"] == pytest.approx(other.mean(), abs=1e-4)
    assert found["larger"]["value"] == pytest.approx(np.mean(peak > other), abs=1e-4)
    assert found["difference"]["value"] == pytest.approx((peak - other).mean(), abs=1e-4)
    by_patient = (peak - other).reshape(30, 2).mean(1)
    reach = norm.ppf(0.975) * by_patient.std() / np.sqrt(30)
    low, high = found["difference"]["ci"]
    assert high - low == pytest.approx(2 * reach, rel=0.12)
    assert found["difference"]["p"] < 0.01


def test_a_peak_like_any_place_makes_no_difference() -> None:
    frame, _, _ = lesions()
    swapped = frame.assign(
        after=np.where(np.arange(len(frame)) % 4 < 2, frame["after"], frame["control"]),
        control=np.where(np.arange(len(frame)) % 4 < 2, frame["control"], frame["after"]),
    )
    found = deletion(swapped, Draws(frame["patient_id"].unique(), 500, 0), 5)
    low, high = found["difference"]["ci"]
    assert low < 0 < high
    assert found["difference"]["p"] > 0.05


def test_too_few_lesions_are_an_na() -> None:
    frame, _, _ = lesions()
    found = deletion(frame.tail(4), Draws(frame["patient_id"].unique(), 50, 0), 5)
    assert found["na"] == "3 lesions with room for a control; at least 5 are needed"
    assert found["n_without"] == 1


def test_the_report_holds_both_tests_and_says_what_older_embeddings_lack(tmp_path: Path) -> None:
    table = cohort()
    assert table.evidence is not None
    record = told(table)
    found = record["tasks"]["grounding"]["findings"]["mass"]["deletion"]
    kept = table.evidence.dropna()
    assert (found["n"], found["n_without"]) == (len(kept), 80 - len(kept))
    assert found["difference"]["value"] == pytest.approx((kept["control"] - kept["after"]).mean(), abs=1e-4)
    shown = write_markdown(document(record), tmp_path).read_text(encoding="utf-8")
    assert "fall at the peak" in shown
    assert "Pointing game" in shown
    older = replace(table, evidence=table.evidence.drop(columns=list(DELETION)))
    shown = write_markdown(document(told(older)), tmp_path).read_text(encoding="utf-8")
    assert "No deletion test: these embeddings hold no deletion tests; make them anew with medvl embed" in shown
    assert "fall at the peak" not in shown
    assert "Pointing game" in shown
