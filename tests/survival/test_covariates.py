"""Clinical covariates: training statistics only, unknown levels, nothing dropped."""

import json

import numpy as np
import pandas as pd
import pytest

from medvl.errors import ConfigError
from medvl.survival.covariates import Covariates, fit_covariates

TRAINING = pd.DataFrame(
    {
        "age": [50.0, 60.0, np.nan, 70.0, 80.0, 90.0],
        "size": [1, 2, 3, 4, 5, 6],
        "stage": ["I", "I", "I", "II", "II", "IV"],
        "grade": [1.0, 2.0, 2.0, np.nan, 1.0, 1.0],
    }
)


def _fitted() -> Covariates:
    return fit_covariates(TRAINING, numeric=["age", "size"], categorical=["stage", "grade"], rare=2)


def test_features_of_training_rows_by_hand() -> None:
    found = _fitted().encode(TRAINING)
    assert found.names == ("age", "age missing", "size", "stage=II", "stage=other", "grade=2", "grade=unknown")
    age = np.array([50, 60, 70, 70, 80, 90.0])  # the median of the five known is 70
    size = np.arange(1, 7.0)
    expected = [
        (age - age.mean()) / age.std(),
        [0, 0, 1, 0, 0, 0],
        (size - 3.5) / size.std(),
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
        [0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
    ]
    assert np.allclose(found.x, np.array(expected).T)
    assert found.missing == {"age": 1, "size": 0, "stage": 0, "grade": 1}
    assert found.unseen == {}


def test_other_rows_change_nothing_of_each_other_and_are_all_kept() -> None:
    rows = pd.DataFrame({"age": [np.nan, 1e6], "size": [np.nan, 2], "stage": ["III", None], "grade": ["2", 3]})
    fit = _fitted()
    both, one = fit.encode(rows), fit.encode(rows[:1])
    assert len(both.x) == 2
    assert (both.x[:1] == one.x).all()
    assert np.isfinite(both.x).all()
    assert dict(zip(both.names, both.x[0], strict=True)) | {"age": 0, "size": 0} == {
        "age": 0,
        "age missing": 1,
        "size": 0,
        "stage=II": 0,
        "stage=other": 0,
        "grade=2": 1,
        "grade=unknown": 0,
    }
    assert both.missing == {"age": 1, "size": 1, "stage": 1, "grade": 0}
    assert both.unseen == {"stage": {"III": 1}, "grade": {"3": 1}}
    assert both.x[1, -1] == 1
    assert both.describe() == "2 rows; missing: age 1, size 1, stage 1; not seen in training: stage III 1, grade 3 1"


def test_whole_numbers_are_one_level_however_they_are_stored() -> None:
    fit = fit_covariates(pd.DataFrame({"g": [1, 2, 1, 2, 1]}), categorical=["g"], rare=1)
    for values in ([2], [2.0], ["2"], [" 2 "]):
        assert fit.encode(pd.DataFrame({"g": values})).x.tolist() == [[1.0]]


def test_a_column_that_does_not_vary_is_zero() -> None:
    fit = fit_covariates(pd.DataFrame({"a": [3.0, 3.0]}), numeric=["a"])
    assert fit.encode(pd.DataFrame({"a": [3.0, 3.0]})).x.tolist() == [[0.0], [0.0]]


def test_json_round_trip() -> None:
    fit = _fitted()
    assert Covariates.from_json(json.loads(json.dumps(fit.to_json()))) == fit


@pytest.mark.parametrize(
    ("table", "numeric", "categorical", "match"),
    [
        (TRAINING, ["weight"], [], "'weight'"),
        (TRAINING, ["age"], ["age"], "given twice"),
        (TRAINING, ["stage"], [], "declare it categorical"),
        (pd.DataFrame({"a": [np.nan, np.nan]}), ["a"], [], "no value in training"),
        (pd.DataFrame({"a": [None, None]}), [], ["a"], "no value in training"),
        (TRAINING[:0], ["age"], [], "0 rows"),
    ],
)
def test_unfit_tables_are_refused(table: pd.DataFrame, numeric: list, categorical: list, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        fit_covariates(table, numeric=numeric, categorical=categorical)


def test_a_missing_column_later_is_refused() -> None:
    with pytest.raises(ConfigError, match="'grade'"):
        _fitted().encode(TRAINING.drop(columns="grade"))
