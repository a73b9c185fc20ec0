"""Stage 2: the text tower learns what sentences assert, from the same report-derived attributes, before it meets images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from medvl.data.statements import RegionTexts, Statements
from medvl.data.targets import KindTargets, Targets
from medvl.models.text_encoder import TextEncoder, encode
from medvl.recipe import Recipe
from medvl.training.attributes import AttributeHeads, KindData, Progress, attribute_loss
from medvl.training.batches import Sampler
from medvl.training.optim import adamw, schedule


def shuffled(parts: list[str], rng: np.random.Generator, drop: float = 0.0) -> str:
    """The sentences in a random order, each left out with probability `drop`, never all of them."""
    order = rng.permutation(len(parts))
    kept = [parts[i] for i in order if rng.random() >= drop] or [parts[int(order[0])]]
    return " ".join(kept)


class StatementSampler:
    """Statements drawn so that every value of every attribute comes equally often, whatever its prevalence."""

    def __init__(self, pool: Statements, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        targets = pool.targets
        groups = [np.flatnonzero(targets.binary[:, k] == value) for k in range(targets.binary.shape[1]) for value in (0, 1)]
        for c in range(targets.classes.shape[1]):
            groups += [
                np.flatnonzero(targets.classes[:, c] == value) for value in range(int(targets.classes[:, c].max(initial=-1)) + 1)
            ]
        groups += [np.flatnonzero(np.isfinite(targets.numbers[:, m])) for m in range(targets.numbers.shape[1])]
        self._groups = [g for g in groups if len(g)]

    def next(self, n: int) -> np.ndarray:
        """(n,) statement numbers, with repeats across groups possible."""
        picks = self._rng.integers(len(self._groups), size=n)
        return np.array([self._rng.choice(self._groups[g]) for g in picks])


def train_texts(
    encoder: TextEncoder,
    kinds: Mapping[str, KindTargets],
    data: Mapping[str, KindData],
    pools: Mapping[str, Statements],
    tokenizer: Tokenizer,
    recipe: Recipe,
    progress: Progress,
) -> nn.ModuleDict:
    """Train `encoder` in place; half of each batch are whole region texts in random sentence order, half single statements."""
    width = recipe.model.text.hidden_size
    heads = nn.ModuleDict()
    for name, kind in kinds.items():
        heads[name] = AttributeHeads(width, kind)
    config = recipe.text
    optimiser = adamw([(encoder, 1.0), (heads, 1.0)], config)
    rate = schedule(optimiser, config)
    rng = np.random.default_rng([recipe.seed, 5])
    rows_of = {name: Sampler(len(d.texts), config.batch // 2, recipe.seed + 7) for name, d in data.items()}
    statements_of = {name: StatementSampler(pools[name], recipe.seed + 8) for name in data}
    encoder.train()
    for step in range(config.steps):
        name = list(data)[int(step % 3 == 2) % len(data)]
        texts, targets = _mixed(
            data[name].texts, pools[name], rows_of[name].next(), statements_of[name].next(config.batch // 2), rng
        )
        with torch.autocast("cpu", torch.bfloat16):
            outputs = heads[name](encoder(*encode(tokenizer, texts)))
        loss = attribute_loss(outputs, targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimiser.step()
        rate.step()
        progress("text", step + 1, config.steps, {name: float(loss.detach())})
    return heads


def _mixed(
    texts: RegionTexts, pool: Statements, rows: np.ndarray, picks: np.ndarray, rng: np.random.Generator
) -> tuple[list[str], Targets]:
    said = [shuffled(texts.sentences[r], rng) for r in rows] + [pool.texts[i] for i in picks]
    a, b = texts.targets[rows], pool.targets[picks]
    joined = Targets(
        np.concatenate([a.binary, b.binary]), np.concatenate([a.classes, b.classes]), np.concatenate([a.numbers, b.numbers])
    )
    return said, joined


@torch.no_grad()
def embed_texts(model: nn.Module, tokenizer: Tokenizer, texts: list[str], batch: int = 128) -> torch.Tensor:
    """(N, E) unit embeddings of texts, model in evaluation mode."""
    model.eval()
    parts = [model.embed_text(*encode(tokenizer, texts[i : i + batch])) for i in range(0, len(texts), batch)]  # type: ignore[operator]
    return torch.cat(parts)
