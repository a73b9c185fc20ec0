"""The supervised baseline: the first stage's own heads, trained from scratch on report labels, asked the same regions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from medvl.errors import ConfigError
from medvl.models.clip import RegionClip
from medvl.recipe import Recipe
from medvl.training.attributes import heads_for
from medvl.training.batches import to_pixels


class SupervisedBaseline:
    """Stage 1 of a run, as it was before alignment.

    Args:
        run: folder of a `medvl train` run.

    Raises:
        ConfigError: the folder holds no finished first stage.
    """

    def __init__(self, run: Path) -> None:
        if not (run / "attributes.safetensors").is_file():
            raise ConfigError(f"no attributes.safetensors in {run}; give the folder of a medvl train run")
        self.recipe = Recipe.model_validate(json.loads((run / "recipe.json").read_text(encoding="utf-8")))
        self.model = RegionClip(self.recipe.model, 8)
        self.heads = heads_for(self.model, self.recipe.kinds)
        group = nn.ModuleDict({"image": self.model.image, "pool": self.model.pool, "heads": self.heads})
        group.load_state_dict(load_file(run / "attributes.safetensors"))
        group.eval()
        self.model.eval()

    @torch.no_grad()
    def scores(self, region: str, crops: Iterable[NDArray[np.int16]]) -> dict[str, NDArray[np.float32]]:
        """Attribute name to (N,) logits of crops (D, H, W) int16 HU of one region name."""
        name, kind = next((n, k) for n, k in self.recipe.kinds.items() if region in k.regions)
        index = list(self.recipe.kinds).index(name)
        windows = self.recipe.input_contract[region].windows_hu
        rows = [self.heads[name](self.model.pooled(to_pixels(c[None], windows), torch.tensor([index])))[0][0] for c in crops]
        logits = torch.stack(rows).numpy()
        return {attribute: logits[:, k] for k, attribute in enumerate(kind.binary)}
