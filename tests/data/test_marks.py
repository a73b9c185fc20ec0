"""Marks of findings on the token grid: where the phantom's masks say, under a name that follows what they mean."""

from pathlib import Path

import numpy as np
import pytest

from medvl.data import marks as module
from medvl.data.cohort import PhantomCohort, crop_geometry
from medvl.data.marks import CELL, build_marks, marks_name
from medvl.geometry import Geometry
from medvl.imaging.phantom.render import lesion_masks
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.preprocess import Contract, RegionSpec

SPEC = RegionSpec("kidney_left", (24, 24, 24), (6.0, 6.0, 6.0), ((-150.0, 250.0),))
NAMES = {"kidney_left": ("renal_mass", "renal_cyst")}


def test_the_name_follows_the_findings_their_order_and_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        NAMES,
        {"kidney_left": ("renal_cyst", "renal_mass")},
        {"kidney_left": ("renal_mass",)},
        {"kidney_right": ("renal_mass", "renal_cyst")},
    ]
    found = {marks_name(n) for n in names}
    assert len(found) == 4
    assert marks_name({"b": ("x",), "a": ["y"]}) == marks_name({"a": ("y",), "b": ["x"]})
    monkeypatch.setattr(module, "MARKS_VERSION", module.MARKS_VERSION + 1)
    assert marks_name(NAMES) not in found


def test_other_findings_do_not_read_the_marks_of_these(tmp_path: Path) -> None:
    number = next(n for n in range(200) if sample_patient(4, n).kidney_left.mass and not sample_patient(4, n).kidney_left.cysts)
    cohort, contract = PhantomCohort(4, number, 1), Contract((SPEC,))
    first = build_marks(tmp_path, cohort, contract, NAMES, 1)
    swapped = build_marks(tmp_path, cohort, contract, {"kidney_left": NAMES["kidney_left"][::-1]}, 1)
    assert set(np.unique(first)) == {0, 1}
    np.testing.assert_array_equal(swapped, first << 1)
    np.testing.assert_array_equal(build_marks(tmp_path, cohort, contract, NAMES, 1), first)
    assert len(list(tmp_path.iterdir())) == 2
    patient = sample_patient(4, number)
    grid = crop_geometry(patient, SPEC, cohort.jitter_mm)
    cells = Geometry.centered(grid.center_lps, (6, 6, 6), tuple(CELL * s for s in SPEC.spacing_mm))
    centre = np.argwhere(lesion_masks(patient, grid)[f"renal_mass@{SPEC.name}"]).mean(0)
    cell = np.rint(cells.to_index(grid.to_lps(centre))).astype(int)
    assert first[0, 0][tuple(cell)] == 1
