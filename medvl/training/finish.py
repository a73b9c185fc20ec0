"""The last stage: from trained towers to a bundle. Calibration, thresholds and limits come from validation patients only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from medvl import __version__
from medvl.errors import ConfigError
from medvl.evaluation.calibration import Calibration, calibrate
from medvl.evaluation.metrics import auroc
from medvl.evaluation.outliers import Familiarity, fit
from medvl.evaluation.zeroshot import answered, prompt_bank
from medvl.models.bundle import Bundle, seal
from medvl.models.clip import RegionClip
from medvl.models.config import ClipConfig
from medvl.models.localiser import Localiser
from medvl.survival.model import SurvivalModel, fit_survival
from medvl.text.prompts import FindingList
from medvl.training.features import embed_texts, pooled_features
from medvl.training.measure import by_patient
from medvl.training.recipe_stage import Trained
from medvl.training.run import Workspace, stage_folder
from medvl.training.samples import KindData, ages_and_outcomes

MIN_EVENTS = 10
Rows = list[tuple[str, Mapping[str, Any], Tensor]]


def half(model: torch.nn.Module) -> None:
    """Round the weights in place to half precision, as the bundle will store them, so that all that follows is fitted to that."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())


def embeddings_of(model: RegionClip, data: Mapping[str, KindData]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Per kind: pooled features (N, P) and unit embeddings (N, E) of its rows."""
    pooled = {name: pooled_features(model, part) for name, part in data.items()}
    with torch.no_grad():
        units = {
            name: functional.normalize(model.project(pooled[name], torch.full((len(pooled[name]),), part.index)), dim=-1)
            for name, part in data.items()
        }
    return pooled, units


def rows_of(data: Mapping[str, KindData], units: Mapping[str, Tensor]) -> dict[str, Rows]:
    """Per kind: (region name, report-derived labels, embedding) of each row."""
    out: dict[str, Rows] = {}
    for name, part in data.items():
        rows = []
        for i, (r, c) in enumerate(zip(part.texts.rows, part.texts.columns, strict=True)):
            region = part.cohort.regions[int(c)]
            rows.append((region, part.cohort.cases[int(r)]["labels"][region], units[name][i]))
        out[name] = rows
    return out


def calibrations(
    findings: FindingList, rows: Mapping[str, Rows], bank: Mapping[str, Tensor]
) -> tuple[dict[str, Calibration], dict[str, float]]:
    """Calibration and validation AUROC by finding; a finding with too few answers is left out of the bundle."""
    out, scores = {}, {}
    for finding in findings.findings:
        labels, margins = answered(finding, findings, rows[finding.region], bank)
        try:
            out[finding.key] = calibrate(labels, margins)
        except ValueError:
            continue
        scores[finding.key] = auroc(labels, margins)
    return out, scores


def survival_of(work: Workspace, units: Mapping[str, Tensor], validation_units: Mapping[str, Tensor]) -> SurvivalModel | None:
    """Fit on training patients; percentiles refer to validation patients. None where fewer than ten events are known."""
    cohort = next(iter(work.train.values())).cohort
    ages, time, event = ages_and_outcomes(cohort.cases)
    rows = by_patient(work.train, units)
    known = [i for i in np.flatnonzero(np.isfinite(time)) if rows[i]]
    if event[known].sum() < MIN_EVENTS:
        return None
    model = fit_survival(
        work.recipe.endpoint,
        [rows[i] for i in known],
        [ages[i] for i in known],
        time[known],
        event[known],
        tuple(cohort.regions),
        work.recipe.survival_penalty,
    )
    ages, _, _ = ages_and_outcomes(next(iter(work.validation.values())).cohort.cases)
    held = by_patient(work.validation, validation_units)
    risks = [model.risk(e, age) for e, age in zip(held, ages, strict=True) if e]
    return SurvivalModel(**{**vars(model), "reference": np.sort(np.array(risks))})


def export(work: Workspace, trained: Trained, localiser: Localiser, findings: FindingList, findings_text: str) -> Bundle:
    """Fit everything that is fitted after training, and write the bundle to `OUT/bundle`.

    Raises:
        ConfigError: the recipe's system answers by concept streams, which bundles do not carry yet.
    """
    if trained.system.streams is not None:
        raise ConfigError(f"recipe {work.recipe.name} answers by concept streams; bundles carry aligned towers only")
    model = trained.system.clip
    half(model)
    half(localiser)
    kinds = {name: kind.regions for name, kind in work.recipe.kinds.items()}
    bank = prompt_bank(findings, kinds, lambda texts: embed_texts(model, texts))
    pooled, units = embeddings_of(model, work.train)
    pooled_val, units_val = embeddings_of(model, work.validation)
    fitted, scores = calibrations(findings, rows_of(work.validation, units_val), bank)
    familiar = {name: fit(pooled[name].numpy(), pooled_val[name].numpy()) for name in kinds}
    folder = work.out / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    _write_weights(folder, model, localiser, bank, familiar)
    shapes = {
        "clip": ClipConfig(**{k: getattr(work.recipe.model, k) for k in ClipConfig.model_fields}).model_dump(mode="json"),
        "localiser": work.recipe.localiser.model_dump(mode="json"),
        "kinds": {k: list(v) for k, v in kinds.items()},
    }
    survival = survival_of(work, units, units_val)
    for name, values in {
        "contract.json": work.recipe.input_contract.to_json(),
        "model.json": shapes,
        "calibration.json": {k: c.as_dict() for k, c in fitted.items()},
        **({"survival.json": survival.to_json()} if survival else {}),
        "metrics.json": {"cohort": work.recipe.cohort.model_dump(), "validation_auroc": scores, "stages": _receipts(work)},
    }.items():
        (folder / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    work.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "findings.yaml").write_text(findings_text, encoding="utf-8")
    (folder / "README.md").write_text(_card(work, scores), encoding="utf-8")
    return seal(folder, work.recipe.name, f"medvl {__version__}")


def _write_weights(
    folder: Path, model: RegionClip, localiser: Localiser, bank: Mapping[str, Tensor], familiar: Mapping[str, Familiarity]
) -> None:
    tensors = {f"clip.{k}": v for k, v in model.state_dict().items()} | {
        f"localiser.{k}": v for k, v in localiser.state_dict().items()
    }
    packed = {k: (v.half() if v.is_floating_point() else v).detach().contiguous().clone() for k, v in tensors.items()}
    save_file(packed, folder / "weights.safetensors")
    save_file({k: v.contiguous() for k, v in bank.items()}, folder / "bank.safetensors")
    parts: dict[str, Tensor] = {}
    for name, f in familiar.items():
        parts |= {f"{name}.mean": torch.from_numpy(f.mean), f"{name}.basis": torch.from_numpy(np.ascontiguousarray(f.basis))}
        parts |= {f"{name}.rest_scale": torch.tensor(f.rest_scale), f"{name}.limit": torch.tensor(f.limit)}
    save_file(parts, folder / "familiarity.safetensors")


def _receipts(work: Workspace) -> dict[str, Any]:
    found = {stage.name: stage_folder(work, i) / "receipt.json" for i, stage in enumerate(work.recipe.stages)}
    return {name: json.loads(path.read_text("utf-8")) for name, path in found.items() if path.exists()}


def _card(work: Workspace, scores: Mapping[str, float]) -> str:
    cohort = work.recipe.cohort
    rows = "\n".join(f"| {key} | {value:.3f} |" for key, value in scores.items())
    return f"""# {work.recipe.name}

{work.recipe.summary}. Made by `medvl train`, medvl {__version__}.

**Intended use.** Demonstration, tests and teaching of medvl. It was trained on computer-made phantoms, not on patients.
**Not for** diagnosis, treatment or any decision about a person. On scans of real patients it is expected to answer
"undecided: out_of_distribution"; any other answer on a real patient has no evidence behind it.

**Data.** Phantom cohort, seed {cohort.seed}: {cohort.n_train} training, {cohort.n_validation} validation and
{cohort.n_test} test patients with different numbers. Reports are generated;
labels are read from the reports by rules. No patient data.

**Input.** `contract.json`: kidney regions 120 mm wide at 2.5 mm, chest region 216 x 216 x 240 mm, two HU windows each.

**Calibration.** Platt scaling, thresholds and undecided bands from validation patients.

| finding | validation AUROC, zero-shot |
|---|---|
{rows}

Held-out results with confidence intervals: `docs/explanation/demo-model.md`,
printed by `medvl evaluate --bundle {work.recipe.name}`.

**Limits.** Parametric anatomy, few findings, simple noise, English reports of one generator. No people are represented.
"""
