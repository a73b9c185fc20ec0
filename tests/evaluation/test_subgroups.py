"""Groups are cut where they should be, nobody is lost between them, and small ones are NA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pretend import PROTOCOL, cohort, model
from sklearn.metrics import roc_auc_score

from medvl.evaluation.protocol import Subgroup, load_protocol
from medvl.evaluation.results import Subject, evaluate
from medvl.evaluation.subgroups import levels


def test_bins_hold_their_lower_edge_and_the_unknown_stand_apart() -> None:
    patients = pd.DataFrame({"age": [49.9, 50.0, 69.9, 70.0, None]}, index=list("abcde"))
    found = levels(patients, Subgroup(column="age", bins=(50, 70)))
    assert found.tolist() == ["below 50", "50 to below 70", "50 to below 70", "70 and above", "not known"]


def test_values_become_groups() -> None:
    patients = pd.DataFrame({"sex": ["F", None, "", "M"]}, index=list("abcd"))
    assert levels(patients, Subgroup(column="sex")).tolist() == ["F", "not known", "not known", "M"]


@pytest.mark.parametrize(
    ("column", "bins", "says"),
    [("none", None, "does not tell none"), ("many", None, "40 different values"), ("words", (1.0,), "no numbers")],
)
def test_what_cannot_be_split_says_why(column: str, bins: Any, says: str) -> None:
    patients = pd.DataFrame({"many": [f"v{i}" for i in range(40)], "words": ["a"] * 40})
    with pytest.raises(ValueError, match=says):
        levels(patients, Subgroup(column=column, bins=bins))


def test_groups_add_up_and_agree_with_scikit_learn() -> None:
    table = cohort(120)
    found = evaluate(load_protocol(PROTOCOL), Subject(model(), table))
    sex, age, scanner = found["subgroups"]
    whole = found["tasks"]["zero_shot"]["findings"]["mass"]["n"]
    for column in (sex, age):
        assert sum(g["patients"] for g in column["groups"]) == 120
        assert sum(g["findings"]["mass"]["n"] for g in column["groups"]) == whole
    use = table.usable & (table.truth[:, 0] >= 0) & (table.of_patients("sex") == "F")
    women = sex["groups"][0]["findings"]["mass"]
    assert women["auroc"]["value"] == pytest.approx(roc_auc_score(table.truth[use, 0], table.margins[use, 0]), abs=1e-4)
    assert scanner["na"] == "the cohort does not tell scanner"
    areas = [sex["groups"][0]["findings"][k]["auroc"]["value"] for k in sex["mean_over"]]
    assert sex["groups"][0]["mean_auroc"]["value"] == pytest.approx(np.mean(areas), abs=1e-4)


def test_a_group_that_is_too_small_is_na_and_does_not_decide_for_others() -> None:
    table = cohort(60)
    table.patients["sex"] = ["F"] * 58 + ["M"] * 2
    column = evaluate(load_protocol(PROTOCOL), Subject(model(), table))["subgroups"][0]
    women, men = column["groups"]
    assert men["findings"]["mass"]["na"] == "fewer than 5 present or absent"
    assert men["mean_auroc"]["value"] is None
    assert women["mean_auroc"]["value"] is not None
    assert men["concordance"]["na"].endswith("at least 10 are needed")
