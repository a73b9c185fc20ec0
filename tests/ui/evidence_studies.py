"""Results with everything that newer runs record, a bundle's survival model, and an index to compare with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_folder import finding, study_json, write_study
from safetensors.numpy import save_file
from streamlit.testing.v1 import AppTest

from medvl.survival.model import SurvivalModel
from medvl_ui.extras import Extras, open_extras
from medvl_ui.station import open_station

PAGE = Path(__file__).with_name("evidence_page.py")
CASE, OTHER = "e1full", "e2other"
SHA, CONTRACT, WIDTH = "0f" * 32, "c0ffee", 24
SPREAD = {"sd": 0.12, "low": 0.31, "high": 0.82, "turned": 0.22}


def unit(seed: int) -> np.ndarray:
    """(24,) float32 of length 1."""
    made = np.random.default_rng(seed).normal(size=WIDTH)
    return (made / np.linalg.norm(made)).astype(np.float32)


def survival_model() -> SurvivalModel:
    """A small Cox model on two kidneys and age, with 90 reference patients."""
    rng = np.random.default_rng(3)
    n = 2 * (WIDTH + 1) + 1
    center, scale = rng.normal(size=n), rng.uniform(0.5, 2, n)
    center[-1], scale[-1] = 60.0, 10.0
    weights = 0.05 * rng.normal(size=n)
    weights[-1] = 0.4
    regions, baseline = ("kidney_left", "kidney_right"), np.array([0.05, 0.2, 0.4])
    return SurvivalModel("overall survival", regions, WIDTH, center, scale, weights, np.sort(rng.normal(size=90)), baseline)


def full_finding(**more: Any) -> dict[str, Any]:
    """An undecided finding with every field."""
    withheld = [{"code": "paraphrases_disagree", "message": "22% of other wordings give the other answer; at most 20% may"}]
    told = {"threshold": 0.5, "interval": [0.44, 0.68], "spread": SPREAD, "margin": 0.21, "percentile": 83.4}
    test = {"before": 0.57, "after": 0.21, "control": 0.55}
    return finding("renal_mass", "kidney_left", 0.57, "undecided", reasons=withheld, deletion=test, **told) | more


def write_full(root: Path, *, age_years: float | None = None, vectors: bool = True, **more: Any) -> dict[str, Any]:
    """A study with all fields, its embeddings and a risk that fits them; its record."""
    known = {"kidney_left": unit(1), "kidney_right": unit(2)}
    regions = [{"name": name, "found": True, "covered": 1.0, "reasons": []} for name in known]
    risk = survival_model().estimate(known, age_years)
    study = study_json(CASE, findings=[full_finding()], risk=risk, regions=regions) | more
    folder = write_study(root, study)
    if vectors:
        meta = {"model_sha256": SHA, "contract_hash": CONTRACT}
        save_file(known, folder / "embeddings.safetensors", metadata=meta)
    return study


class PretendBundle:
    """As much of a bundle as the panes read."""

    def __init__(self, sha256: str = SHA, survival: SurvivalModel | None = None) -> None:
        self.name, self.sha256 = "phantom", sha256
        self._files = {"survival.json": json.dumps(survival.to_json())} if survival else {}

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def values(self, name: str) -> Any:
        return json.loads(self._files[name])


def readings(root: Path, monkeypatch: pytest.MonkeyPatch, *, bundle: Any = None, **options: Any) -> AppTest:
    """The reading column on the first study of a folder."""
    open_station(root)
    given = open_extras(Extras(**options))
    given.__dict__["opened_bundle"] = bundle
    return AppTest.from_file(str(PAGE), default_timeout=60).run()


def said(at: AppTest) -> str:
    """All that is said, without the backslashes of escaped Markdown."""
    assert not at.exception
    kinds = (at.markdown, at.text, at.caption, at.warning, at.info)
    return "\n".join(str(element.value) for kind in kinds for element in kind).replace("\\", "")


def pane(at: AppTest, name: str) -> AppTest:
    """The page with another pane open."""
    at.session_state["pane"] = name
    return at.run()
