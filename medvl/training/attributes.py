"""Stage 1: the image tower learns what reports say of each region (masked multi-task classification and sizes)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from medvl.data.cohort import Cohort
from medvl.data.statements import RegionTexts
from medvl.data.targets import KindTargets, Targets
from medvl.evaluation.metrics import auroc
from medvl.models.clip import RegionClip
from medvl.objectives.attributes import masked_bce, masked_cross_entropy, masked_smooth_l1
from medvl.recipe import Recipe
from medvl.training.batches import Sampler, to_pixels, vary
from medvl.training.optim import adamw, schedule

Progress = Callable[[str, int, int, Mapping[str, float]], None]


class AttributeHeads(nn.Module):
    """Linear heads over one kind's pooled features: binary logits, class logits, standardised numbers."""

    def __init__(self, width: int, kind: KindTargets) -> None:
        super().__init__()
        self.sizes = [len(kind.binary), *(len(v) for v in kind.classes.values()), len(kind.numbers)]
        self.linear = nn.Linear(width, sum(self.sizes))

    def forward(self, features: Tensor) -> list[Tensor]:
        """Binary logits (B, K), one (B, n) per class attribute, and numbers (B, M)."""
        return list(self.linear(features).float().split(self.sizes, dim=1))


def attribute_loss(outputs: list[Tensor], targets: Targets) -> Tensor:
    """() sum of the three masked terms, each a mean over what is known."""
    binary, *classes, numbers = outputs
    loss = masked_bce(binary, torch.from_numpy(targets.binary.astype(np.int64)))
    for k, logits in enumerate(classes):
        loss = loss + 0.3 * masked_cross_entropy(logits, torch.from_numpy(targets.classes[:, k].astype(np.int64)))
    return loss + 0.5 * masked_smooth_l1(numbers, torch.from_numpy(targets.numbers))


@dataclass(frozen=True, eq=False)
class KindData:
    """One kind's share of a cohort, ready to draw batches from."""

    index: int
    kind: KindTargets
    texts: RegionTexts
    windows_hu: tuple[tuple[float, float], ...]

    def crops(self, cohort: Cohort, rows: np.ndarray) -> np.ndarray:
        """(B, D, H, W) int16 HU of those rows of the texts."""
        return np.stack([cohort.hu[r, c] for r, c in zip(self.texts.rows[rows], self.texts.columns[rows], strict=True)])


def heads_for(model: RegionClip, kinds: Mapping[str, KindTargets]) -> nn.ModuleDict:
    """Fresh heads, one set a kind."""
    return nn.ModuleDict({name: AttributeHeads(model.pool.width, kind) for name, kind in kinds.items()})


def train_attributes(
    model: RegionClip,
    heads: nn.ModuleDict,
    cohort: Cohort,
    data: Mapping[str, KindData],
    recipe: Recipe,
    progress: Progress,
    validate: Callable[[], Mapping[str, float]] | None = None,
) -> None:
    """Train image tower, pooling and heads in place; each step takes one batch of every kind, the rarer at half size."""
    config = recipe.attributes
    optimiser = adamw([(model.image, 1.0), (model.pool, 1.0), (heads, 1.0)], config)
    rate = schedule(optimiser, config)
    rng = np.random.default_rng(recipe.seed)
    most = max(len(d.texts) for d in data.values())
    samplers = {
        name: Sampler(len(d.texts), max(2, round(config.batch * len(d.texts) / most)), recipe.seed + d.index)
        for name, d in data.items()
    }
    model.train()
    for step in range(config.steps):
        rows = {name: samplers[name].next() for name in data}
        outputs = _forward(model, heads, data, rows, {name: part.crops(cohort, rows[name]) for name, part in data.items()}, rng)
        losses = {name: attribute_loss(outputs[name], part.texts.targets[rows[name]]) for name, part in data.items()}
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimiser.step()
        rate.step()
        report: dict[str, float] = {name: float(loss.detach()) for name, loss in losses.items()}
        if validate is not None and ((step + 1) % 200 == 0 or step + 1 == config.steps):
            report.update(validate())
            model.train()
        progress("attributes", step + 1, config.steps, report)


def _forward(
    model: RegionClip,
    heads: nn.ModuleDict,
    data: Mapping[str, KindData],
    rows: Mapping[str, np.ndarray],
    crops: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> dict[str, list[Tensor]]:
    """Head outputs by kind. All kinds pass the trunk in one batch: its batch statistics must be those it will use later."""
    pixels = torch.cat([to_pixels(vary(crops[name], rng), part.windows_hu) for name, part in data.items()])
    kinds = torch.cat([torch.full((len(rows[name]),), part.index) for name, part in data.items()])
    with torch.autocast("cpu", torch.bfloat16):
        pooled = model.pooled(pixels.contiguous(memory_format=torch.channels_last_3d), kinds)
        return {name: heads[name](part) for name, part in zip(data, pooled.split([len(r) for r in rows.values()]), strict=True)}


@torch.no_grad()
def pooled_features(model: RegionClip, cohort: Cohort, part: KindData, batch: int = 64) -> Tensor:
    """(N, P) float32 pooled features of every text row's crop, model in evaluation mode."""
    model.eval()
    out = []
    for start in range(0, len(part.texts), batch):
        rows = np.arange(start, min(start + batch, len(part.texts)))
        pixels = to_pixels(part.crops(cohort, rows), part.windows_hu)
        with torch.autocast("cpu", torch.bfloat16):
            out.append(model.pooled(pixels, torch.full((len(rows),), part.index)).float())
    return torch.cat(out)


def attribute_scores(heads: nn.ModuleDict, features: Mapping[str, Tensor], data: Mapping[str, KindData]) -> dict[str, float]:
    """AUROC of each attribute's head against the report-derived labels."""
    scores = {}
    for name, part in data.items():
        logits = heads[name](features[name])[0].detach().numpy()
        for k, attribute in enumerate(part.kind.binary):
            labels = part.texts.targets.binary[:, k]
            known = labels >= 0
            if len(set(labels[known].tolist())) == 2:
                scores[attribute] = auroc(labels[known], logits[known, k])
    return scores
