"""An embedded cohort survives the disk, keeps rows and patients together, and says what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medvl.errors import ConfigError
from medvl.evaluation.embedded import ARRAYS, Embedded


def made(n: int = 6) -> Embedded:
    rng = np.random.default_rng(0)
    who = [f"P{i // 2}" for i in range(n)]
    region = ["kidney_left", "kidney_right"] * (n // 2)
    rows = pd.DataFrame(
        {
            "patient_id": who,
            "region": region,
            "kind": "kidney",
            "report": "A cyst.",
            "reason": ["", "region_incomplete"] * (n // 2),
        }
    )
    patients = pd.DataFrame(
        {"sex": "F", "age_years": np.arange(n // 2) + 50.0}, index=pd.Index(sorted(set(who)), name="patient_id")
    )
    vectors = rng.normal(size=(3, n, 4)).astype(np.float32)
    margins = rng.normal(size=(n, 2)).astype(np.float32)
    evidence = pd.DataFrame({"patient_id": ["P0", "P1"], "finding": "mass", "hit": [True, False]})
    labels = rng.integers(-1, 2, (2, n, 2)).astype(np.int8)
    return Embedded(rows, patients, *vectors, ("cyst", "mass"), margins, *labels, {"model": "m", "split": "test"}, evidence)


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    one = made()
    one.save(tmp_path / "e")
    two = Embedded.load(tmp_path / "e")
    pd.testing.assert_frame_equal(one.rows, two.rows)
    pd.testing.assert_frame_equal(one.patients, two.patients)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        assert getattr(two, name).dtype == getattr(one, name).dtype
    pd.testing.assert_frame_equal(one.evidence, two.evidence)
    assert (two.findings, dict(two.source)) == (one.findings, dict(one.source))


def test_taking_rows_keeps_their_patients_only() -> None:
    part = made().take(np.array([4, 1]))
    assert part.rows["patient_id"].tolist() == ["P2", "P0"]
    assert part.patients.index.tolist() == ["P0", "P2"]
    assert part.evidence["patient_id"].tolist() == ["P0"]
    assert part.of_patients("age_years").tolist() == [52.0, 50.0]
    assert part.usable.tolist() == [True, False]
    np.testing.assert_array_equal(part.margins, made().margins[[4, 1]])


def test_what_does_not_fit_is_an_error() -> None:
    one = made()
    with pytest.raises(ConfigError, match=r"other lengths: \{'truth': 5\}"):
        replace(one, truth=one.truth[:5])
    with pytest.raises(ConfigError, match="2 rows"):
        replace(one, patients=one.patients.iloc[1:])
    with pytest.raises(ConfigError, match="listed twice"):
        replace(one, patients=pd.concat([one.patients, one.patients]))
    with pytest.raises(ConfigError, match="stone is not among those embedded: cyst, mass"):
        one.column("stone")


def test_a_folder_without_one_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="medvl embed"):
        Embedded.load(tmp_path)
