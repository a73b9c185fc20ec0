"""A bundle from the real training path in seconds: the phantom-demo recipe shrunk, with grids that are no cubes.

What it answers means nothing; that every part runs, fits the next one and is kept is what the tests look at.
"""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medvl.geometry import Geometry
from medvl.imaging.phantom.render import region_centers, render, scanner_geometry
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.truth import Patient
from medvl.models.localiser import Place
from medvl.records import Volume

GRID = (16, 20, 24)
_WINDOWS = [[-150, 250], [-200, 1000]]
_REGIONS = [
    {"name": name, "grid_dhw": list(GRID), "spacing_mm": spacing, "windows_hu": _WINDOWS}
    for name, spacing in (("kidney_left", [4.5, 4.5, 4.0]), ("kidney_right", [4.5, 4.5, 4.0]), ("chest", [7.0, 7.0, 7.0]))
]


def _short(stage: str, **changes: int) -> dict[str, Any]:
    return {f"stages.{stage}.{key}": value for key, value in {**changes, "warmup": 1}.items()}


_CHANGES: dict[str, Any] = {
    "cohort.n_train": 24,
    "cohort.n_validation": 40,
    "cohort.n_test": 2,
    "contract.regions": _REGIONS,
    "model.image": {
        "widths": [8, 8, 8, 8],
        "token_dim": 16,
        "value_dim": 4,
        "n_queries": 3,
        "peak_dim": 12,
        "kinds": ["kidney", "chest"],
    },
    "model.text": {"vocab_size": 400, "hidden_size": 32, "layers": 1, "heads": 2, "intermediate_size": 32, "max_length": 144},
    "model.embed_dim": 16,
    "localiser": {"channels": [4, 8, 8], "spacing_mm": 12.0, "min_confidence": 0.0},
    "localise": {"scans": 3, "steps": 2, "batch": 2, "learning_rate": 0.003, "warmup": 1},
    **_short("attributes", steps=3, batch=12),
    **_short("text", steps=3, batch=8, statements=8),
    **_short("align_frozen", steps=3, batch=16, statements=16),
    **_short("align_joint", steps=2, batch=8, statements=16),
    **_short("align_statements", steps=2, batch=8, statements=16),
    "statements": 200,
    "workers": 1,
}
OVERRIDES = [f"{key}={json.dumps(value)}" for key, value in _CHANGES.items()]


@dataclass(frozen=True)
class Tiny:
    """A finished run: its folder, the bundle in it and what the command printed."""

    out: Path
    bundle: Path
    printed: str


def train(out: Path) -> Tiny:
    """Run `medvl train phantom-demo` with `OVERRIDES` into `out`."""
    from medvl_pipelines import train as verb

    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(io.StringIO()):
        assert verb.run("phantom-demo", out, OVERRIDES) == 0
    return Tiny(out, out / "bundle", shown.getvalue())


def patient(number: int, *, coverage: str = "chest_abdomen", seed: int = 21) -> Patient:
    """The first phantom from `number` on whose scan covers what is asked."""
    while (found := sample_patient(seed, number)).scanner.coverage != coverage:
        number += 1
    return found


def scan_of(who: Patient, spacing_mm: tuple[float, float, float] = (6.0, 3.0, 3.5)) -> Volume:
    """A whole scan of a phantom, coarse enough for a test."""
    return render(who, scanner_geometry(who, spacing_mm))


def upside_down(volume: Volume) -> Volume:
    """The same scan with its slices stored in the other order."""
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = volume.geometry.shape_dhw[0] - 1
    return Volume(volume.hu[::-1].copy(), Geometry(volume.geometry.shape_dhw, volume.geometry.affine_lps @ flip))


def places(who: Patient) -> dict[str, Place]:
    """What a localiser that is always right would say."""
    return {name: Place(center, 0.9) for name, center in region_centers(who).items()}
