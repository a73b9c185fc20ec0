"""From a parent's weights: where a retraining begins, and how far from there it ends.

Blending in weight space after Wortsman et al. 2022 (WiSE-FT); the share is chosen on validation patients, the smallest of equals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medvl.errors import ConfigError
from medvl.files import write_json
from medvl.models.bundle import Bundle
from medvl.models.system import System
from medvl.training.measure import Reader, report_auroc
from medvl.training.recipe_stage import Trained
from medvl.training.run import Workspace, stage_folder

BLEND_FILE = "blend.json"
_NOT_KEPT = ("reconstruct.",)  # parts that only training has


def parent_weights(bundle: Bundle) -> dict[str, Tensor]:
    """The weights of a bundle's system by name, in float32, without its localiser."""
    return {k: v for k, v in bundle.tensors("weights.safetensors").items() if not k.startswith("localiser.")}


def begin_from(weights: Mapping[str, Tensor], system: System) -> None:
    """Put the parent's weights into a fresh system of the same shapes, in place.

    Raises:
        ConfigError: a weight is missing, unknown or of another shape.
    """
    mine = system.state_dict()
    wrong = [k for k, v in weights.items() if k not in mine or mine[k].shape != v.shape]
    wrong += [k for k in mine if k not in weights and not k.startswith(_NOT_KEPT)]
    if wrong:
        raise ConfigError(f"the parent's weights do not fit the recipe's model: {wrong[0]} and {len(wrong) - 1} others")
    system.load_state_dict(dict(weights), strict=False)


def blend(parent: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """`share` of the way from the parent's weights to the trained ones; counters and what the parent lacks are as trained."""
    return {
        key: torch.lerp(parent[key].to(value), value, share) if key in parent and value.is_floating_point() else value
        for key, value in trained.items()
    }


@dataclass(frozen=True)
class Blend:
    """The chosen share, and the mean validation AUROC of each share tried."""

    share: float
    tried: dict[str, float]


def settle_blend(work: Workspace, trained: Trained, parent: Mapping[str, Tensor], shares: Sequence[float]) -> Blend:
    """Choose the share with the best mean validation AUROC against reports, and leave the system at it, in evaluation mode.

    The choice is kept in `OUT/blend.json` with the stage it was made after, and read from there by a run that goes on.

    Raises:
        ConfigError: no finding can be measured on the validation patients.
    """
    system, path = trained.system.eval(), work.out / BLEND_FILE
    reached = {k: v.detach().clone() for k, v in system.state_dict().items()}
    after = stage_folder(work, len(work.recipe.stages) - 1).name
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if kept.get("after") != after:
        tried = {}
        for share in sorted(shares):
            system.load_state_dict(blend(parent, reached, share))
            reader = Reader(system, work.recipe.kinds, work.findings, work.concepts)
            tried[str(share)] = round(report_auroc(reader, work.validation), 6)
            if np.isnan(tried[str(share)]):
                raise ConfigError("no finding has both answers among the validation patients; give more validation patients")
        best = max(sorted(shares), key=lambda share: tried[str(share)])
        kept = {"after": after, "share": best, "validation_auroc": tried}
        write_json(path, kept)
    system.load_state_dict(blend(parent, reached, float(kept["share"])))
    return Blend(float(kept["share"]), dict(kept["validation_auroc"]))
