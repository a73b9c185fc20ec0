"""What one study's results say, read from disk: answers, heat maps, risk, and who said it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.delivery.uids import content_hash
from medvl.errors import InputError
from medvl.geometry import Geometry
from medvl.imaging.nifti import read_nifti
from medvl.records import Reason

_SCHEMA = "medvl.findings/1"


@dataclass(frozen=True, eq=False)
class Answer:
    """One finding of one region, as `findings.json` describes it.

    Args:
        heat: (D, H, W) float32 in [0, 1] on `grid`; both None without a heat map.
    """

    key: str
    label: str
    region: str
    verdict: str
    score: float | None
    threshold: float | None
    low: float | None
    high: float | None
    reasons: tuple[Reason, ...]
    peak_lps: tuple[float, float, float] | None
    deletion: Mapping[str, float] | None
    interval: tuple[float, float] | None
    margin: float | None
    percentile: float | None
    heat: NDArray[np.float32] | None = field(default=None, repr=False)
    grid: Geometry | None = None

    @property
    def name(self) -> str:
        """Finding and region in one word, unique within a study."""
        return f"{self.key}@{self.region}"

    @property
    def place(self) -> str:
        """The region as people say it."""
        kind, _, side = self.region.rpartition("_")
        return f"{side} {kind.replace('_', ' ')}" if side in ("left", "right") else self.region.replace("_", " ")


@dataclass(frozen=True, eq=False)
class Told:
    """One finished study.

    Args:
        content: hash of what the record says, the same for every run that says the same.
        regions: as recorded.
        notes: what was noticed in the series.
        risk: as recorded, None without a survival estimate.
    """

    content: str
    software: str
    research_use: str
    bundle: str
    bundle_sha256: str
    asked: str | None
    answers: tuple[Answer, ...]
    regions: tuple[Mapping[str, Any], ...]
    notes: tuple[Reason, ...]
    risk: Mapping[str, Any] | None

    @property
    def version(self) -> str:
        """Of the software, without its name."""
        return self.software.rpartition(" ")[2]


def read_told(study: Path) -> Told:
    """The record in a study's results folder, with its heat maps.

    Raises:
        InputError: ``results_unreadable``, or ``not_done`` when the study was skipped or failed.
    """
    try:
        values = json.loads((study / "findings.json").read_text(encoding="utf-8"))
        if values["schema"] != _SCHEMA:
            raise InputError("results_unreadable", f"the record is not of schema {_SCHEMA}; run `medvl infer` again")
        if values["status"] != "done":
            raise InputError("not_done", "the study has no answers; its record says why, and nothing is delivered")
        grids = {r["name"]: _grid(r) for r in values["regions"]}
        return Told(
            content=content_hash(values),
            software=values["software"],
            research_use=values["research_use"],
            bundle=values["bundle"]["name"],
            bundle_sha256=values["bundle"]["sha256"],
            asked=values["asked"]["name"] if values.get("asked") else None,
            answers=tuple(_answer(f, grids.get(f["region"]), study) for f in values["findings"]),
            regions=tuple(values["regions"]),
            notes=_reasons(values["reasons"]),
            risk=values["risk"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"the study's record cannot be read ({type(error).__name__}); run `medvl infer` again"
        raise InputError("results_unreadable", message) from error


def _grid(region: Mapping[str, Any]) -> Geometry | None:
    if region["shape_dhw"] is None:
        return None
    d, h, w = region["shape_dhw"]
    return Geometry((d, h, w), np.array(region["affine_lps"]))


def _answer(values: Mapping[str, Any], grid: Geometry | None, study: Path) -> Answer:
    heat = _heat(study, values["heatmap"], grid) if values["heatmap"] and grid is not None else None
    peak, interval = values["peak_lps"], values.get("interval")
    return Answer(
        key=values["finding"],
        label=values["label"],
        region=values["region"],
        verdict=values["verdict"],
        score=values["score"],
        threshold=values["threshold"],
        low=values["threshold_low"],
        high=values["threshold_high"],
        reasons=_reasons(values["reasons"]),
        peak_lps=(float(peak[0]), float(peak[1]), float(peak[2])) if peak else None,
        deletion=values["deletion"],
        interval=(interval[0], interval[1]) if interval else None,
        margin=values.get("margin"),
        percentile=values.get("percentile"),
        heat=heat,
        grid=grid if heat is not None else None,
    )


def _heat(study: Path, name: str, grid: Geometry) -> NDArray[np.float32]:
    """A heat map, on the grid that the record gives for its region.

    Raises:
        InputError: ``results_unreadable`` when the file lies elsewhere, on another grid, or leaves [0, 1].
    """
    path = (study / name).resolve()
    if not path.is_relative_to(study.resolve()):
        raise InputError("results_unreadable", "a heat map lies outside the study's folder; run `medvl infer` again")
    volume = read_nifti(path, check_hu=False)
    heat = volume.hu.astype(np.float32)
    if volume.geometry != grid or heat.min() < 0 or heat.max() > 1:
        raise InputError("results_unreadable", "a heat map does not fit its region; run `medvl infer` again")
    return heat


def _reasons(values: Sequence[Mapping[str, str]]) -> tuple[Reason, ...]:
    return tuple(Reason(r["code"], r["message"]) for r in values)
