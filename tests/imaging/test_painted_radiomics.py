"""Radiomics of painted tumours: true masks are measured, ranks come from training rows alone, who has no mask is counted."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medvl.data.painted_cohort import Case, PaintedCohort, tumour_paint
from medvl.geometry import Geometry
from medvl.imaging.painted.masks import KidneyFacts, Lesion

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RADIUS_MM, CENTER = 20.0, (60.0, 10.0, -30.0)


@pytest.fixture(scope="module")
def painted() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("painted_radiomics")


@pytest.fixture
def cohort(tmp_path: Path) -> PaintedCohort:
    (tmp_path / "native_crop").mkdir()
    (tmp_path / "kits23.json").write_text("[]", encoding="utf-8")
    return PaintedCohort(tmp_path, "test")


def _case(radius_mm: float) -> Case:
    """A kidney of a ball with a tumour of a smaller ball at its middle, and another kidney far off without one."""
    grid = Geometry.centered((0.0, 10.0, -30.0), (60, 80, 130), (2.0, 2.0, 2.0))
    index = np.moveaxis(np.indices(grid.shape_dhw), 0, -1)
    away = np.linalg.norm(grid.to_lps(index) - np.array(CENTER), axis=-1)
    labels = np.where(away <= radius_mm, 2, np.where(away <= 45.0, 1, 0)).astype(np.uint8)
    lesion = Lesion(round(2 * radius_mm), 30.0, "interpolar", 0.0)
    kidneys = {
        "left": KidneyFacts("left", CENTER, 90, 300.0, (lesion,), ()),
        "right": KidneyFacts("right", (-60.0, 10.0, -30.0), 90, 300.0, (), ()),
    }
    row = {"bmi": 27.0, "tumor_histologic_subtype": "clear_cell_rcc", "tumor_necrosis": False}
    return Case(3, labels, grid, 0.0, kidneys, row)


def test_features_are_of_the_true_tumour_and_of_its_paint(painted: ModuleType, cohort: PaintedCohort) -> None:
    pytest.importorskip("mirp")
    case = _case(RADIUS_MM)
    found = painted.of_case(cohort, case)
    assert found["morph_volume"] == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=0.05)
    assert found["morph_sphericity"] > 0.9
    assert found["stat_median"] == pytest.approx(tumour_paint(cohort, case).hu("arterial"), abs=6)
    cut = painted.of_case(replace(cohort, link=False), case)
    shape = {name for name in found if painted.is_shape(name)}
    assert len(shape) == 21
    assert {name for name in found if name.startswith("morph_") and cut[name] == found[name]} == shape
    assert cut["stat_median"] < found["stat_median"] - 10  # clear cell is painted avid only where the link is kept


def test_a_tumour_below_a_millilitre_or_none_at_all_gives_nothing(painted: ModuleType, cohort: PaintedCohort) -> None:
    pytest.importorskip("mirp")
    assert painted.of_case(cohort, _case(5.0)) == {}
    bare = _case(RADIUS_MM)
    kidneys = {side: replace(facts, tumours=()) for side, facts in bare.kidneys.items()}
    assert painted.of_case(cohort, replace(bare, kidneys=kidneys)) == {}


def test_ranks_come_from_training_rows_alone(painted: ModuleType) -> None:
    survival = importlib.import_module("painted_survival")
    rng = np.random.default_rng(0)
    x, train = np.exp(3 * rng.normal(size=(60, 4))), np.arange(60) < 40
    changed = x.copy()
    changed[~train] *= rng.uniform(0.1, 1000, changed[~train].shape)
    one, other, logs = (survival._scaled(survival.Ranked(v), train) for v in (x, changed, np.log(x)))
    np.testing.assert_array_equal(one[train], other[train])
    np.testing.assert_allclose(one[train], logs[train])  # skew makes no difference
    np.testing.assert_allclose(one[train].std(0), 1.0)
    assert not np.array_equal(one[~train], other[~train])


def test_what_only_the_mask_knows_is_found_by_radiomics_and_not_by_the_image(painted: ModuleType) -> None:
    rng = np.random.default_rng(1)
    parts, pooled, found = {}, {}, {}
    for split, n in {"train": 120, "validation": 40, "test": 80}.items():
        cases: list[dict[str, Any]] = []
        for i in range(n):
            name, clear = f"{split}_{i}", bool(rng.random() < 0.5)
            size = float(rng.exponential())
            kidneys = {"left": {"tumours": [{"size_mm": 30, "volume_ml": 9.0}]}, "right": {"tumours": []}}
            clinical = {
                "tumor_histologic_subtype": "clear_cell_rcc" if clear else "oncocytoma",
                "tumor_isup_grade": str(rng.integers(1, 5)),
                "tumor_necrosis": bool(rng.random() < 0.3),
                "malignant": bool(rng.random() < 0.7),
                "age_at_nephrectomy": 60,
                "gender": "male",
                "bmi": 27.0,
                "comorbidities": None,
                "smoking_history": "never_smoked",
            }
            days = float(rng.exponential(1000 / (0.2 + size)))
            truth = {"kidneys": kidneys, "clinical": clinical, "time_days": days, "event": bool(rng.random() < 0.5)}
            cases.append({"patient_id": name, "truth": truth})
            found[name] = {"morph_volume": size, "stat_mean": 2.0 * clear + rng.normal()}
        cohort = SimpleNamespace(cases=cases, regions=("kidney_left", "kidney_right"))
        texts = SimpleNamespace(rows=np.repeat(np.arange(n), 2), columns=np.tile([0, 1], n))
        parts[split], pooled[split] = SimpleNamespace(cohort=cohort, texts=texts), rng.normal(size=(2 * n, 6))
    found["test_7"] = {}
    told = painted.compare(parts, pooled, found, 200, 0)
    assert told["patients"] == {"train": 120, "validation": 40, "test": 79}
    assert (told["refused"], told["features"]) == (1, {"radiomics": 2, "shape": 1})
    clear = told["pathology"]["clear cell carcinoma"]
    assert clear["n"] == 79
    assert clear["radiomics"]["value"] > 0.85 > 0.7 > clear["image"]["value"]
    assert clear["radiomics - image"]["ci"][0] > 0
    assert clear["shape"]["value"] < 0.7
    died = told["survival"]
    assert died["n"] == 239
    assert died["shape"]["value"] > 0.6 > died["image"]["value"]
    assert died["(radiomics) - (image)"]["ci"][0] > 0
