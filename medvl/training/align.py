"""Stages 3 and 4: bring regions and texts together, first on frozen image features, then with both towers moving.

Two terms: region against its report text (contrastive, targets softened by label likeness, so that two reports that say the same
are not pushed apart), and region against single statements (sigmoid, true or contradicted by the region's own report).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from medvl.data.cohort import Cohort
from medvl.data.statements import Statements
from medvl.data.targets import agreement, likeness
from medvl.models.clip import RegionClip
from medvl.models.text_encoder import encode
from medvl.objectives.contrastive import assertion_pairs, image_text_contrastive, soft_targets
from medvl.recipe import Recipe, StageConfig
from medvl.training.attributes import KindData, Progress, attribute_loss
from medvl.training.batches import Sampler, to_pixels, vary
from medvl.training.optim import adamw, schedule
from medvl.training.texts import StatementSampler, shuffled

Features = Callable[[str, np.ndarray], Tensor]


class Assertions(nn.Module):
    """The sigmoid term's own scale and bias; used in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        self.bias = nn.Parameter(torch.tensor(-2.0))


class Aligner:
    """Draws batches of one kind at a time and computes the alignment loss on image features it is given."""

    def __init__(
        self,
        model: RegionClip,
        data: Mapping[str, KindData],
        pools: Mapping[str, Statements],
        tokenizer: Tokenizer,
        recipe: Recipe,
        stage: StageConfig,
        seed: int,
    ) -> None:
        self.model, self.data, self.pools, self.tokenizer, self.recipe, self.stage = model, data, pools, tokenizer, recipe, stage
        self.assertions = Assertions()
        self.rng = np.random.default_rng([recipe.seed, seed])
        self._rows = {name: Sampler(len(d.texts), stage.batch, recipe.seed + seed) for name, d in data.items()}
        self._statements = {name: StatementSampler(pools[name], recipe.seed + seed + 1) for name in data}

    def draw(self, step: int) -> tuple[str, np.ndarray]:
        """Kind and rows of this step; two steps in three go to the first kind."""
        name = list(self.data)[int(step % 3 == 2) % len(self.data)]
        return name, self._rows[name].next()

    def loss(self, name: str, rows: np.ndarray, pooled: Tensor, *, pairs: bool = True) -> tuple[Tensor, dict[str, float]]:
        """() loss of one batch and its parts, from (B, P) pooled features; without `pairs` only the statements."""
        part, pool, align = self.data[name], self.pools[name], self.recipe.align
        kind = torch.full((len(rows),), part.index)
        image = functional.normalize(self.model.project(pooled, kind), dim=-1)
        picks = self._statements[name].next(align.n_statements)
        with torch.autocast("cpu", torch.bfloat16):
            single = self.model.embed_text(*encode(self.tokenizer, [pool.texts[i] for i in picks]))
        targets = part.texts.targets[rows]
        agrees = torch.from_numpy(agreement(targets, pool.targets[picks], part.kind))
        asserted = assertion_pairs(image, single, agrees, self.assertions.log_scale.exp(), self.assertions.bias)
        loss = align.assertion_weight * asserted
        told = {"assertions": float(asserted.detach())}
        if pairs:
            matched = self._pairs(part, rows, image)
            loss = loss + matched
            told |= {"pairs": float(matched.detach()), "scale": float(self.model.scale.detach())}
        return loss, told

    def _pairs(self, part: KindData, rows: np.ndarray, image: Tensor) -> Tensor:
        """() contrastive term between regions (B, E) and their own report texts."""
        align = self.recipe.align
        texts = [shuffled(part.texts.sentences[r], self.rng, drop=0.1) for r in rows]
        with torch.autocast("cpu", torch.bfloat16):
            whole = self.model.embed_text(*encode(self.tokenizer, texts))
        alike = torch.from_numpy(likeness(part.texts.targets[rows]))
        return image_text_contrastive(
            image, whole, self.model.scale, soft_targets(alike, align.hard_weight, align.target_temperature)
        )


def align_frozen(
    aligner: Aligner, features: Mapping[str, Tensor], progress: Progress, *, pairs_every: int = 1, name: str = "align frozen"
) -> None:
    """Move the text tower and both projections towards fixed image features; whole reports take part in every nth step."""
    model, config = aligner.model, aligner.stage
    optimiser = adamw(
        [(model.text, 0.5), (model.text_projection, 1.0), (model.image_projection, 1.0), (aligner.assertions, 1.0)],
        config,
        [model.log_scale],
    )
    rate = schedule(optimiser, config)
    model.train()
    for step in range(config.steps):
        kind, rows = aligner.draw(step)
        loss, parts = aligner.loss(kind, rows, features[kind][torch.from_numpy(rows)], pairs=step % pairs_every == 0)
        _advance(loss, optimiser, rate, model)
        progress(name, step + 1, config.steps, parts)


def align_joint(aligner: Aligner, heads: nn.ModuleDict, cohort: Cohort, progress: Progress) -> None:
    """Fine-tune everything; the attribute heads stay on as an anchor, so that small findings are not forgotten."""
    model, config, align = aligner.model, aligner.stage, aligner.recipe.align
    optimiser = adamw(
        [
            (model.image, align.encoder_rate),
            (model.pool, align.encoder_rate),
            (heads, align.encoder_rate),
            (model.text, 0.5),
            (model.text_projection, 1.0),
            (model.image_projection, 1.0),
            (aligner.assertions, 1.0),
        ],
        config,
        [model.log_scale],
    )
    rate = schedule(optimiser, config)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # one kind a batch: its statistics are not those of all kinds
    for step in range(config.steps):
        name, rows = aligner.draw(step)
        part = aligner.data[name]
        pixels = to_pixels(vary(part.crops(cohort, rows), aligner.rng), part.windows_hu)
        with torch.autocast("cpu", torch.bfloat16):
            pooled = model.pooled(pixels, torch.full((len(rows),), part.index))
            outputs = heads[name](pooled)
        loss, parts = aligner.loss(name, rows, pooled.float())
        kept = attribute_loss(outputs, part.texts.targets[rows])
        _advance(loss + align.keep_attributes * kept, optimiser, rate, model)
        progress("align joint", step + 1, config.steps, {**parts, "attributes": float(kept.detach())})


def _advance(loss: Tensor, optimiser: torch.optim.Optimizer, rate: torch.optim.lr_scheduler.LambdaLR, model: nn.Module) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    rate.step()
