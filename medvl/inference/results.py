"""Results on disk: one folder a study, one table for all, nothing half written, no identifiers.

`findings.json` is the record of a study (schema `medvl.findings/1`, described in `docs/reference/results.md`). A study's
folder is moved to its place whole, so that its presence means the study is complete.
"""

from __future__ import annotations

import csv
import errno
import json
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl import __version__
from medvl.data.identity import folder_key, keyed_id, patient_id
from medvl.data.person import person_of
from medvl.files import settle, whole, write_json
from medvl.geometry import Geometry
from medvl.imaging.load import Entry
from medvl.imaging.nifti import write_nifti
from medvl.inference.answers import CaseResult, FindingResult, RegionResult
from medvl.models.bundle import Bundle
from medvl.records import RESEARCH_USE, Reason

SCHEMA = "medvl.findings/1"
HEAT_LEVELS = 255
_TRIES = 20
SCANNER_FACTS = ("manufacturer", "model", "kernel", "kvp", "slice_thickness_mm", "contrast", "transfer_syntaxes")
COLUMNS = (
    "case_id",
    "status",
    "reason",
    "finding",
    "label",
    "region",
    "score",
    "calibrated",
    "verdict",
    "reasons",
    "peak_lps",
    "score_without_peak",
    "bundle",
    "series",
    "margin",
    "percentile",
    "spread_sd",
    "interval_low",
    "interval_high",
    "threshold",
    "threshold_low",
    "threshold_high",
    "bundle_sha256",
    "contract",
    "findings_sha256",
    "pixels_sha256",
    "software",
    "made_at",
)
_FLOATS = (
    *("score", "score_without_peak", "margin", "percentile", "spread_sd"),
    *("interval_low", "interval_high", "threshold", "threshold_low", "threshold_high"),
)


class ResultsFolder:
    """A results folder, opened for writing.

    Args:
        out: made when missing. It keeps a random key (`key`, mode 0600) from which case ids are derived, and `sources.json`
            (mode 0600), the only file that says where inputs lie.
        asked: `name` and `sha256` of the user's findings list; None where the bundle's own is asked.
    """

    def __init__(self, out: Path, asked: Mapping[str, str] | None = None) -> None:
        self.out, self.asked = out, dict(asked) if asked else None
        (out / "studies").mkdir(parents=True, exist_ok=True)
        self.key = folder_key(out / "key")

    def case_id(self, study_key: str) -> str:
        """12 hex digits: a keyed hash, the same for a study each time in this folder, and not to be traced from elsewhere."""
        return keyed_id(self.key, study_key)

    def folder(self, case_id: str) -> Path:
        """Where a study's results lie."""
        return self.out / "studies" / case_id

    def done(self, case_id: str) -> bool:
        """Whether the record of a finished study is there."""
        try:
            values = json.loads((self.folder(case_id) / "findings.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False
        return bool(values.get("status") == "done")

    def write(self, case_id: str, values: Mapping[str, Any], result: CaseResult | None) -> None:
        """One study: built beside its place and moved there whole; what lay there before goes. Two runs may write it at once."""
        folder, part = self.folder(case_id), self.out / "studies" / f".{case_id}-{uuid.uuid4().hex[:8]}.part"
        (part / "heatmaps").mkdir(parents=True)
        for answer in result.findings if result else ():
            if answer.heat is not None and answer.heat_geometry is not None:
                _write_heat(answer.heat, answer.heat_geometry, part / _heat_name(answer))
        _write_embeddings(part / "embeddings.safetensors", values, result)
        write_json(part / "findings.json", values)
        settle(part)
        _into_place(part, folder)

    def tidy(self, older_s: float = 3600.0) -> None:
        """Remove what killed processes left half written; what is younger may be somebody's work."""
        for pattern in (".*.part", "studies/.*.part", "studies/*/dicom/.*.part"):
            for part in self.out.glob(pattern):
                with suppress(OSError):
                    if time.time() - part.stat().st_mtime > older_s:
                        shutil.rmtree(part) if part.is_dir() else part.unlink()

    def record(
        self,
        case_id: str,
        bundle: Bundle,
        status: str,
        reasons: Sequence[Reason],
        series: Mapping[str, Any] | None,
        result: CaseResult | None,
    ) -> dict[str, Any]:
        """The content of `findings.json`; `series` as `series_record` tells it."""
        return {
            "schema": SCHEMA,
            "case_id": case_id,
            "software": f"medvl {__version__}",
            "research_use": RESEARCH_USE,
            "bundle": {"name": bundle.name, "sha256": bundle.sha256, "contract": bundle.contract.hash},
            "asked": self.asked,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "status": status,
            "reasons": _reasons(reasons),
            "series": dict(series) if series else None,
            "regions": [_region(r) for r in result.regions.values()] if result else [],
            "findings": [_finding(f) for f in result.findings] if result else [],
            "risk": dict(result.risk) if result and result.risk else None,
            "timings_s": result.timings_s if result else {},
        }

    def places(self, sources: Mapping[str, Mapping[str, str]]) -> None:
        """Write `sources.json`, readable by the owner only: where each study lies."""
        write_json(self.out / "sources.json", sources, mode=0o600)

    def tables(self) -> int:
        """Write `results.csv` and `results.parquet` from every study in the folder; returns the rows."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for path in sorted((self.out / "studies").glob("*/findings.json")):
            rows += _rows(json.loads(path.read_text(encoding="utf-8")))
        with whole(self.out / "results.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        for name in _FLOATS:
            frame[name] = frame[name].astype("float64")
        frame.attrs["research_use"] = RESEARCH_USE
        with whole(self.out / "results.parquet") as part:
            frame.to_parquet(part, index=False)
        return len(rows)


def _into_place(part: Path, folder: Path) -> None:
    """Move a folder to where another may lie, or be moved to at the same time; the last one stays."""
    for left in range(_TRIES, -1, -1):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            part.replace(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not left:
                raise
        else:
            return


def series_record(entry: Entry, key: bytes, patient_key: bytes = b"") -> dict[str, Any]:
    """What is told of the series used: plain values, no identifiers.

    Its key and the patient are there as hashes keyed by `key`, and the patient's link by the site's `patient_key`, where given.
    """
    grid = entry.geometry
    return {
        "key": keyed_id(key, entry.key),
        "patient": patient_id(key, entry.patient_number),
        "person": person_of(patient_key, entry.patient_number) or None,
        "modality": entry.modality,
        "n_files": entry.n_files,
        "verdict": entry.verdict,
        "reasons": _reasons(entry.reasons),
        "shape_dhw": list(grid.shape_dhw) if grid else None,
        "spacing_mm": [round(s, 4) for s in grid.spacing_mm] if grid else None,
        "affine_lps": grid.affine_lps.tolist() if grid else None,
        "why": entry.why,
        "facts": {name: entry.facts[name] for name in SCANNER_FACTS if name in entry.facts},
    }


def _reasons(reasons: Sequence[Reason]) -> list[dict[str, str]]:
    return [{"code": r.code, "message": r.message} for r in reasons]


def _region(region: RegionResult) -> dict[str, Any]:
    grid, place = region.geometry, region.place
    return {
        "name": region.name,
        "found": grid is not None,
        "center_lps": [round(float(c), 2) for c in place.center_lps] if place else None,
        "confidence": round(place.confidence, 4) if place else None,
        "source": region.source,
        "covered": round(region.covered, 4),
        "shape_dhw": list(grid.shape_dhw) if grid else None,
        "affine_lps": grid.affine_lps.tolist() if grid else None,
        "reasons": _reasons(region.reasons),
        "ood": None
        if region.distance is None or region.limit is None
        else {"distance": round(region.distance, 4), "limit": round(region.limit, 4), "out": region.distance > region.limit},
    }


def _write_embeddings(path: Path, values: Mapping[str, Any], result: CaseResult | None) -> None:
    """Unit vectors (E,) float32 by region, with the bundle that made them; no file where no region was read."""
    from safetensors.numpy import save_file

    units = {
        n: r.embedding.float().cpu().numpy() for n, r in (result.regions if result else {}).items() if r.embedding is not None
    }
    if units:
        bundle = values["bundle"]
        save_file(units, path, metadata={"model_sha256": bundle["sha256"], "contract_hash": bundle["contract"]})


def _write_heat(heat: NDArray[np.float32], geometry: Geometry, path: Path) -> None:
    """In steps of 1/255, as finely as SEG and the page show it: a sixth of the time and a fifth of the disk that floats take."""
    write_nifti(np.rint(heat * np.float32(HEAT_LEVELS)).astype(np.uint8), geometry, path, scale=1 / HEAT_LEVELS)


def _heat_name(answer: FindingResult) -> str:
    return f"heatmaps/{answer.finding.key}_{answer.region}.nii.gz"


def _finding(answer: FindingResult) -> dict[str, Any]:
    present, absent = answer.prompts
    cut = answer.calibration
    interval = cut.interval(answer.margin) if cut is not None and answer.margin is not None else None
    return {
        "finding": answer.finding.key,
        "label": answer.finding.label,
        "region": answer.region,
        "score": None if answer.score is None else round(answer.score, 4),
        "calibrated": answer.score is not None,
        "verdict": answer.verdict,
        "threshold": None if cut is None else round(cut.threshold, 4),
        "threshold_low": None if cut is None else round(cut.low, 4),
        "threshold_high": None if cut is None else round(cut.high, 4),
        "reasons": _reasons(answer.reasons),
        "prompts": {"present": present, "absent": absent},
        "heatmap": _heat_name(answer) if answer.heat is not None else None,
        "peak_lps": list(answer.evidence.peak_lps) if answer.evidence else None,
        "deletion": None
        if answer.evidence is None
        else {k: _rounded(getattr(answer.evidence, k)) for k in ("before", "after", "control")},
        "interval": None if interval is None else [round(end, 4) for end in interval],
        "spread": None if answer.spread is None else answer.spread.as_dict(),
        "margin": _rounded(answer.margin),
        "percentile": None if answer.percentile is None else round(answer.percentile, 1),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _rows(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    shared = {
        "case_id": values["case_id"],
        "status": values["status"],
        "reason": ";".join(r["code"] for r in values["reasons"]),
        "bundle": values["bundle"]["name"],
        "series": (values.get("series") or {}).get("key"),
        "bundle_sha256": values["bundle"]["sha256"],
        "contract": values["bundle"]["contract"],
        "findings_sha256": (values.get("asked") or {}).get("sha256"),
        **{k: values.get(k) for k in ("pixels_sha256", "software", "made_at")},
    }
    if not values["findings"]:
        return [{**dict.fromkeys(COLUMNS), **shared}]
    return [
        {
            **shared,
            **{k: f[k] for k in ("finding", "label", "region", "score", "calibrated", "verdict")},
            "reasons": ";".join(r["code"] for r in f["reasons"]),
            "peak_lps": " ".join(map(str, f["peak_lps"])) if f["peak_lps"] else None,
            "score_without_peak": f["deletion"]["after"] if f["deletion"] else None,
            "margin": f.get("margin"),
            "percentile": f.get("percentile"),
            "spread_sd": (f.get("spread") or {}).get("sd"),
            **dict(zip(("interval_low", "interval_high"), f.get("interval") or (None, None), strict=True)),
            **{k: f.get(k) for k in ("threshold", "threshold_low", "threshold_high")},
        }
        for f in values["findings"]
    ]
