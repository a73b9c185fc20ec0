"""Stage 1: the image tower learns what reports say of each region (masked multi-task classification and sizes)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medvl.data.cohort import Cohort
from medvl.data.statements import RegionTexts
from medvl.data.targets import KindTargets, Targets
from medvl.evaluation.metrics import auroc
from medvl.models.clip import RegionClip
from medvl.objectives.attributes import masked_bce, masked_cross_entropy, masked_smooth_l1
from medvl.recipe import Recipe
from medvl.training.batches import Sampler, to_pixels, vary
from medvl.training.optim import adamw, schedule

MOST_WEIGHT = 12.0
MARK_GAIN, MARK_OFFSET = 8.0, -5.0
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


def mark_loss(logits: Tensor, marks: NDArray[np.uint8]) -> Tensor:
    """() mean cross-entropy of (B, L, K) logits with (B, d, h, w) bits; marked cells weigh more, up to `MOST_WEIGHT`.

    A cell in a thousand is marked, and the region's answer is the maximum over all: weighing both sides alike would flood it.
    Each finding's sum is divided by the weight of its marked cells, so that rare findings are not drowned by common ones.
    """
    order = np.arange(logits.shape[-1], dtype=np.uint8)
    bits = torch.from_numpy(marks.reshape(len(marks), -1, 1) >> order & 1).float()
    raw = functional.binary_cross_entropy_with_logits(logits.float(), bits, reduction="none")
    share = bits.mean((0, 1)).clamp(1e-4, 0.5)
    weight = (0.25 / share).clamp(1.0, MOST_WEIGHT)
    return (raw * (bits * weight + (1 - bits))).sum((0, 1)).div((bits * weight).sum((0, 1)) + MOST_WEIGHT).mean()


def mark_channels(kinds: Mapping[str, KindTargets]) -> dict[str, slice]:
    """Which channels of the pool's maximum are taught where each kind's findings lie."""
    ends = np.cumsum([0, *(len(kind.marks) for kind in kinds.values())])
    return {name: slice(int(a), int(b)) for name, a, b in zip(kinds, ends[:-1], ends[1:], strict=True)}


def _start_silent(layer: nn.Linear, n_channels: int) -> None:
    """Start the taught channels at nothing: next to no cell is marked, and a random start would first have to unlearn."""
    with torch.no_grad():
        layer.weight[:n_channels] = 0.0
        layer.bias[:n_channels] = 0.0


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
    marks: NDArray[np.uint8] | None = None

    def crops(self, cohort: Cohort, rows: np.ndarray) -> np.ndarray:
        """(B, D, H, W) int16 HU of those rows of the texts."""
        return np.stack([cohort.hu[r, c] for r, c in zip(self.texts.rows[rows], self.texts.columns[rows], strict=True)])

    def marked(self, rows: np.ndarray) -> NDArray[np.uint8]:
        """(B, d, h, w) bits of those rows."""
        assert self.marks is not None  # noqa: S101 - asked only of cohorts that have them
        return np.stack([self.marks[r, c] for r, c in zip(self.texts.rows[rows], self.texts.columns[rows], strict=True)])


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
    optimiser = adamw([(model.image, 1.0), (model.pool, 2.0), (heads, 2.0)], config)
    channels = mark_channels(recipe.kinds)
    if recipe.mark_weight > 0:
        _start_silent(model.pool.peak, max(c.stop for c in channels.values()))
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
        crops = {name: part.crops(cohort, rows[name]) for name, part in data.items()}
        outputs, tokens = _forward(model, heads, data, rows, crops, rng)
        losses = {name: attribute_loss(outputs[name], part.texts.targets[rows[name]]) for name, part in data.items()}
        if recipe.mark_weight > 0:
            for name, part in data.items():
                logits = MARK_GAIN * model.pool.peak(tokens[name].float())[..., channels[name]] + MARK_OFFSET
                losses[f"{name} marks"] = recipe.mark_weight * mark_loss(logits, part.marked(rows[name]))
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
) -> tuple[dict[str, list[Tensor]], dict[str, Tensor]]:
    """Head outputs and tokens by kind. All kinds pass in one batch, so that batch statistics fit all of them."""
    pixels = torch.cat([to_pixels(vary(crops[name], rng), part.windows_hu) for name, part in data.items()])
    kinds = torch.cat([torch.full((len(rows[name]),), part.index) for name, part in data.items()])
    with torch.autocast("cpu", torch.bfloat16):
        tokens, _ = model.image(pixels.contiguous(memory_format=torch.channels_last_3d))
        pooled = model.pool(tokens, kinds)
        sizes = [len(r) for r in rows.values()]
        outputs = {name: heads[name](part) for name, part in zip(data, pooled.split(sizes), strict=True)}
    return outputs, dict(zip(data, tokens.split(sizes), strict=True))


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
