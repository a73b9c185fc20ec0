"""A cohort as one model sees it: embeddings and answers of every region, beside reports, truth and outcomes.

Heads are fitted on it and protocols measured on it, so neither needs images or knows what kind of model answered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.files import whole

ARRAYS = ("embedding", "pooled", "report_embedding", "margins", "said", "truth")
ROW_COLUMNS = ("patient_id", "region", "kind", "report", "reason")


@dataclass(frozen=True, eq=False)
class Embedded:
    """N regions of the patients of a cohort, one study each.

    Args:
        rows: N rows: `patient_id`, `region` (kidney_left), `kind` (kidney), `report` (the region's text, "" for none), `reason`
            ("" where usable, else the code of why not); and what else is known of each, such as `distance` (familiarity) and
            `study` (what a dataset calls the scan).
        patients: by `patient_id`, what is known of each: `sex`, `age_years`, `time_days`, `event`, `phase`, `manufacturer`,
            `slice_thickness_mm`, `kernel`, ...; NaN or None where not known.
        embedding: (N, E) float32 unit vectors; pooled: (N, P) float32 image features. NaN where not usable.
        report_embedding: (N, E) float32 unit vectors of `report`; NaN where there is none.
        findings: keys of the F questions.
        margins: (N, F) float32 uncalibrated scores; NaN where not asked of the region or not usable.
        said: (N, F) int8 what the report says: 1, 0, or -1 for nothing.
        truth: (N, F) int8 what is so, from elsewhere than the report (phantoms, masks); -1 where not known.
        source: provenance: `model` (bundle name), `model_sha256`, `contract_hash`, `cohort`, `split`, `way` (`crops` around true
            centres, or `scans` through the localiser).
        evidence: where maps were compared with known lesions: `patient_id`, `region`, `finding`, `hit` and `near` (peak in the
            lesion, or within 5 mm of it), `share` of the region that the lesion fills; where deletion was tested, the calibrated
            score `before`, `after` (without the peak) and `control` (without as much elsewhere), NaN where not known; or None.

    Raises:
        ConfigError: lengths do not fit, a column is missing, or a row's patient is not among the patients.
    """

    rows: pd.DataFrame
    patients: pd.DataFrame
    embedding: NDArray[np.float32]
    pooled: NDArray[np.float32]
    report_embedding: NDArray[np.float32]
    findings: tuple[str, ...]
    margins: NDArray[np.float32]
    said: NDArray[np.int8]
    truth: NDArray[np.int8]
    source: Mapping[str, str]
    evidence: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        missing = [name for name in ROW_COLUMNS if name not in self.rows]
        if missing:
            raise ConfigError(f"rows of an embedded cohort need the columns {', '.join(missing)}")
        lengths = {name: len(getattr(self, name)) for name in ARRAYS}
        wrong = {name: n for name, n in lengths.items() if n != len(self.rows)}
        if wrong:
            raise ConfigError(f"an embedded cohort of {len(self.rows)} rows has arrays of other lengths: {wrong}")
        if not self.patients.index.is_unique:
            raise ConfigError("a patient is listed twice in an embedded cohort")
        strangers = int((~self.rows["patient_id"].isin(self.patients.index)).sum())
        if strangers:
            raise ConfigError(f"{strangers} rows of an embedded cohort belong to patients that are not listed")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) whether the model read the region."""
        return np.asarray(self.rows["reason"] == "")

    def column(self, finding: str) -> int:
        """The place of a finding.

        Raises:
            ConfigError: it was not asked.
        """
        if finding not in self.findings:
            raise ConfigError(f"finding {finding} is not among those embedded: {', '.join(self.findings)}")
        return self.findings.index(finding)

    def of_patients(self, name: str) -> NDArray[Any]:
        """(N,) the value in column `name` of `patients` for each row's patient."""
        return np.asarray(self.patients[name].reindex(self.rows["patient_id"]))

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Embedded:
        """Some rows, and the patients that these rows belong to."""
        rows = self.rows.iloc[np.flatnonzero(chosen) if chosen.dtype == bool else chosen].reset_index(drop=True)
        kept = self.patients.index.isin(rows["patient_id"])
        arrays = {name: getattr(self, name)[chosen] for name in ARRAYS}
        told = self.evidence
        told = None if told is None else told[told["patient_id"].isin(rows["patient_id"])].reset_index(drop=True)
        return replace(self, rows=rows, patients=self.patients[kept], evidence=told, **arrays)

    def save(self, folder: Path) -> None:
        """Write `arrays.safetensors` and a Parquet file each of rows, patients and, if there is any, evidence into `folder`."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        meta = {"source": json.dumps(dict(self.source)), "findings": json.dumps(self.findings)}
        frames = {"rows": self.rows, "patients": self.patients}
        if self.evidence is not None:
            frames["evidence"] = self.evidence
        for name, frame in frames.items():
            with whole(folder / f"{name}.parquet") as part:
                frame.to_parquet(part)
        with whole(folder / "arrays.safetensors") as part:
            save_file({name: np.ascontiguousarray(getattr(self, name)) for name in ARRAYS}, part, metadata=meta)

    @classmethod
    def load(cls, folder: Path) -> Embedded:
        """What `save` wrote.

        Raises:
            ConfigError: the folder does not hold it, or its files do not fit one another.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(folder / "arrays.safetensors", framework="numpy") as file:
                meta = file.metadata()
                arrays = {name: file.get_tensor(name) for name in ARRAYS}
            frames = {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("rows", "patients")}
            if (folder / "evidence.parquet").is_file():
                frames["evidence"] = pd.read_parquet(folder / "evidence.parquet")
        except (OSError, SafetensorError, ValueError) as error:
            raise ConfigError(f"{folder} holds no embedded cohort ({error}); make it with medvl embed") from error
        return cls(**frames, **arrays, findings=tuple(json.loads(meta["findings"])), source=json.loads(meta["source"]))
