"""The tables of `medvl evaluate` have as many cells as columns, whatever is known."""

from typing import Any

import pytest

from medvl_pipelines.evaluate import _markdown, _tables


def result(**finding: Any) -> dict[str, Any]:
    span = {"value": 0.5, "c_index": 0.7, "rate": 0.6, "ci": [0.4, 0.8], "n": 9, "within_5_mm": 0.7, "chance": 0.1}
    known = {
        "n": 40,
        "present": 11,
        "auroc": 0.81,
        "ci": [0.7, 0.9],
        "sensitivity": 0.75,
        "specificity": None,
        "undecided": 0.1,
        "ece": 0.04,
    }
    ways = ("image_to_report", "report_to_image")
    recalls = {f"{way}_recall_at_{k}": span for way in ways for k in (1, 5, 10)} | {f"{way}_median_rank": 2.0 for way in ways}
    return {
        "bundle": "b",
        "patients": 40,
        "split": "test",
        "findings": {"renal_mass": known | finding},
        "retrieval": {"gallery": 20, "galleries": 2, "chance_at_1": 0.05} | recalls,
        "survival": {"n": 40, "events": 12, "model": span, "oracle": span, "age_only": span},
        "pointing": {"all": span},
        "localiser": {"chest": {"n": 30, "median_mm": 3.25, "within_15_mm": 0.97}},
    }


@pytest.mark.parametrize("finding", [{}, {"supervised": 0.9}, {"supervised": None, "sensitivity": None}])
def test_every_row_fills_its_columns(finding: dict[str, Any]) -> None:
    tables = list(_tables(result(**finding)))
    assert len(tables) == 5
    for _, columns, rows in tables:
        assert [len(row) for row in rows] == [len(columns)] * len(rows)
    text = _markdown(tables)
    assert "0.810 [0.700, 0.900]" in text
