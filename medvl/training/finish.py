"""The last stage: from a trained system to a bundle. Calibration, thresholds and limits come from validation patients only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from medvl import __version__
from medvl.evaluation.outliers import IMAGE_SPREAD, Familiarity, fit
from medvl.files import write_json
from medvl.heads.answering import Answering, Read
from medvl.heads.fitting import Fitted, Regions, choose_prior, fit_findings, reference_of
from medvl.heads.paraphrases import DRAWS
from medvl.heads.priors import null_answers
from medvl.heads.ways import Towers, answering
from medvl.imaging.appearance import appearance
from medvl.models.bundle import Bundle, seal
from medvl.models.config import ClipConfig
from medvl.models.localiser import Localiser
from medvl.models.system import System
from medvl.recipe import as_plain
from medvl.survival.model import SurvivalModel
from medvl.text.prompts import FindingList
from medvl.training.batches import to_pixels
from medvl.training.card import card
from medvl.training.outcome import survival_of
from medvl.training.recipe_stage import Trained
from medvl.training.run import Workspace, stage_folder
from medvl.training.samples import KindData, ages_and_outcomes, half_known

Carry = Callable[[Fitted, Answering, Mapping[str, Regions]], tuple[Fitted, dict[str, float]]]
BATCH = 64
LEARNED = ("steps", "step", "loss", "best", "stopped_early", "device", "torch", "world_size", "sha256")  # of a receipt
LOOKS = 3000  # crops of a kind whose look is enough to know it


def half(model: torch.nn.Module) -> None:
    """Round the weights in place to half precision, as the bundle will store them, so that all that follows is fitted to that."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())


def read_all(system: Answering, data: Mapping[str, KindData]) -> dict[str, Read]:
    """Per kind, what the system makes of each row's main scan, in full precision as inference does it."""
    out = {}
    for name, part in data.items():
        found = []
        for start in range(0, len(part), BATCH):
            crops = part.crops(np.arange(start, min(start + BATCH, len(part))))
            found.append(system.read(to_pixels(crops, part.windows_hu), part.index))
        out[name] = Read(*(torch.cat(parts) for parts in zip(*found, strict=True)))
    return out


def regions_of(data: Mapping[str, KindData], read: Mapping[str, Read]) -> dict[str, Regions]:
    """Per kind: region names, patients, answers and report-derived labels of its rows."""
    out = {}
    for name, part in data.items():
        cases, columns = part.cohort.cases, [part.cohort.regions[int(c)] for c in part.texts.columns]
        labels = [cases[int(r)]["labels"][region] for r, region in zip(part.texts.rows, columns, strict=True)]
        out[name] = Regions(columns, np.asarray(part.texts.rows), read[name].answers, labels)
    return out


def familiarity(work: Workspace, read: Mapping[str, Read], held: Mapping[str, Read]) -> dict[str, Familiarity]:
    """By kind, what image features are familiar; by ``kind/image``, what crops look like before any network."""
    found = {name: fit(read[name].pooled.numpy(), held[name].pooled.numpy()) for name in read}
    for name, part in work.train.items():
        found[f"{name}/image"] = fit(_looks(part), _looks(work.validation[name]), least_spread=IMAGE_SPREAD)
    return found


def _looks(part: KindData) -> NDArray[np.float32]:
    rows = np.unique(np.linspace(0, len(part) - 1, min(len(part), LOOKS)).astype(np.int64))
    return np.stack([appearance(part.crop(int(row))) for row in rows])


def export(
    work: Workspace,
    trained: Trained,
    localiser: Localiser,
    findings: FindingList,
    findings_text: str,
    provenance: Mapping[str, Any] | None = None,
    *,
    parent: SurvivalModel | None = None,
    carry: Carry | None = None,
) -> Bundle:
    """Fit everything that is fitted after training, and write the bundle to `OUT/bundle`.

    The same weights, data and machine make the same bytes: what a run took is in its folder, not in its bundle.

    Args:
        work: what was trained on.
        trained: the result.
        localiser: of the bundle.
        findings: questions.
        findings_text: the file they came from.
        provenance: what else is known of the origin, such as a parent's hash, for `provenance.json`.
        parent: survival model that is taken where it predicts the training patients better than one fitted on them.
        carry: adds calibrations of findings that validation patients cannot calibrate, and says how sure that is.

    Raises:
        ConfigError: a finding is asked that the recipe's concept streams were not taught.
    """
    system = trained.system
    half(system)
    half(localiser)
    asked = answering(system, {name: kind.regions for name, kind in work.recipe.kinds.items()}, findings)
    read, held = read_all(asked, work.train), read_all(asked, work.validation)
    regions = regions_of(work.validation, held)
    nulls = null_answers(asked, work.recipe.input_contract, {name: found.answers for name, found in read.items()})
    chosen = choose_prior(asked, regions, nulls)
    fitted = replace(fit_findings(asked, regions), prior=chosen.prior, priors=chosen.priors)
    fitted, carried = carry(fitted, asked, regions) if carry else (fitted, {})
    folder = work.out / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    _write_weights(folder, system, localiser, asked)
    write_familiar(folder, familiarity(work, read, held))
    save_file(reference_of(regions), folder / "reference.safetensors")
    units = [{name: found.embedding for name, found in part.items()} for part in (read, held)]
    survival, origin = survival_of(work, units[0], units[1], parent)
    for name, values in {
        "contract.json": work.recipe.input_contract.to_json(),
        "model.json": _shapes(work, system, asked),
        "calibration.json": {k: c.as_dict() for k, c in fitted.calibrations.items()},
        **({"paraphrases.json": {"draws": DRAWS, "seed": 0, "limits": fitted.limits}} if fitted.limits else {}),
        **({"survival.json": survival.to_json()} if survival else {}),
        "metrics.json": _metrics(work, fitted) | {k: v for k, v in {"carried_over": carried, "survival": origin}.items() if v},
        "recipe.json": as_plain(work.recipe),
        "provenance.json": {"software": f"medvl {__version__}", **(provenance or {})},
    }.items():
        write_json(folder / name, values)
    work.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "findings.yaml").write_text(findings_text, encoding="utf-8")
    (folder / "README.md").write_text(
        card(work, fitted, streams=system.streams is not None, provenance=provenance, carried=carried), encoding="utf-8"
    )
    return seal(folder, work.recipe.name, f"medvl {__version__}")


def _shapes(work: Workspace, system: System, asked: Answering) -> dict[str, Any]:
    shapes: dict[str, Any] = {
        "clip": ClipConfig(**{k: getattr(work.recipe.model, k) for k in ClipConfig.model_fields}).model_dump(mode="json"),
        "localiser": work.recipe.localiser.model_dump(mode="json"),
        "kinds": {k: list(v) for k, v in asked.kinds.items()},
    }
    if system.config.streams is not None:
        shapes["streams"] = system.config.streams.model_dump(mode="json")
        shapes["concepts"] = {"anatomies": list(system.anatomies.names), "findings": list(system.findings.names)}
    return shapes


def _metrics(work: Workspace, fitted: Fitted) -> dict[str, Any]:
    cases = next(iter(work.train.values())).cohort.cases
    _, time, event = ages_and_outcomes(cases)
    return {
        "outcomes": {"known": int(np.isfinite(time).sum()), "events": int(event.sum()), "half_known": half_known(cases)},
        "cohort": work.recipe.cohort.model_dump() if all("seed" in (case.get("truth") or {}) for case in cases) else None,
        "validation_auroc": fitted.auroc,
        "prior": {"chosen": fitted.prior, "validation": fitted.priors},
        "stages": _receipts(work),
    }


def _write_weights(folder: Path, system: System, localiser: Localiser, asked: Answering) -> None:
    """Weights, but for a decoder of masked voxels, which answers nothing; the embedded prompts, and the prior if there is one."""
    tensors = {k: v for k, v in system.state_dict().items() if not k.startswith("reconstruct.")}
    tensors |= {f"localiser.{k}": v for k, v in localiser.state_dict().items()}
    packed = {k: (v.half() if v.is_floating_point() else v).detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(packed, folder / "weights.safetensors")
    bank = asked.bank if isinstance(asked, Towers) else {}
    save_file({k: v.contiguous() for k, v in bank.items()}, folder / "bank.safetensors")
    if asked.prior:
        save_file({k: v.clone().contiguous() for k, v in asked.prior.items()}, folder / "prior.safetensors")


def write_familiar(folder: Path, familiar: Mapping[str, Familiarity]) -> None:
    """Write `familiarity.safetensors`."""
    parts: dict[str, Tensor] = {}
    for name, f in familiar.items():
        parts |= {f"{name}.mean": torch.from_numpy(f.mean), f"{name}.basis": torch.from_numpy(np.ascontiguousarray(f.basis))}
        parts |= {f"{name}.rest_scale": torch.tensor(f.rest_scale), f"{name}.limit": torch.tensor(f.limit)}
    save_file(parts, folder / "familiarity.safetensors")


def _receipts(work: Workspace) -> dict[str, Any]:
    found = {stage.name: stage_folder(work, i) / "receipt.json" for i, stage in enumerate(work.recipe.stages)}
    read = {name: json.loads(path.read_text("utf-8")) for name, path in found.items() if path.exists()}
    return {name: {key: receipt[key] for key in LEARNED} for name, receipt in read.items()}
