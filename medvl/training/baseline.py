"""The supervised baseline: attribute heads on the image tower, as a stage of a run left them, asked the same regions."""

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
from medvl.models.encoder import image_encoder
from medvl.models.pooling import image_pool
from medvl.objectives.attributes import AttributeHeads
from medvl.recipe import Recipe
from medvl.training.batches import to_pixels


class SupervisedBaseline:
    """The first stage of a run that has attribute heads, before any alignment.

    Args:
        run: folder of a `medvl train` run.

    Raises:
        ConfigError: the folder holds no recipe, or no finished stage of attributes.
    """

    def __init__(self, run: Path) -> None:
        self.recipe, weights = _stage_with_heads(run)
        config = self.recipe.model.image
        self.image = image_encoder(config)
        self.pool = image_pool(config, self.image)
        heads = {name: AttributeHeads(self.pool.width, kind) for name, kind in self.recipe.kinds.items()}
        self.heads = nn.ModuleDict(heads)
        for module, prefix in (
            (self.image, "system.clip.image."),
            (self.pool, "system.clip.pool."),
            (self.heads, "objectives.attributes.heads."),
        ):
            module.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
            module.eval()

    @torch.no_grad()
    def scores(self, region: str, crops: Iterable[NDArray[np.int16]]) -> dict[str, NDArray[np.float32]]:
        """Attribute name to (N,) logits of crops (D, H, W) int16 HU of one region name."""
        name, kind = next((n, k) for n, k in self.recipe.kinds.items() if region in k.regions)
        index = torch.tensor([list(self.recipe.kinds).index(name)])
        windows = self.recipe.input_contract[region].windows_hu
        rows = [self.heads[name](self.pool(self.image(to_pixels(c[None], windows)), index))[0][0] for c in crops]
        logits = torch.stack(rows).numpy()
        return {attribute: logits[:, k] for k, attribute in enumerate(kind.binary)}


def _stage_with_heads(run: Path) -> tuple[Recipe, dict[str, torch.Tensor]]:
    try:
        recipe = Recipe.model_validate(json.loads((run / "recipe.json").read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigError(f"no recipe.json in {run}; give the folder of a medvl train run") from error
    for stage in recipe.stages:
        for folder in sorted((run / "stages").glob(f"{stage.name}-*/weights.safetensors")):
            weights = load_file(folder)
            if any(key.startswith("objectives.attributes.heads.") for key in weights):
                return recipe, weights
    raise ConfigError(f"no finished stage with attribute heads in {run}; give the folder of a run that has one")
