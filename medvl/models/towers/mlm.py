"""Masked language modelling: teach a tower the words of the corpus before it meets images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from medvl.errors import ConfigError
from medvl.models.towers.base import COUNTED, TextTower

IGNORED = -100


class Masked(NamedTuple):
    """A batch with holes.

    Args:
        ids: (B, M) int64, some replaced.
        targets: (B, M) int64, the original id where it is to be guessed, -100 elsewhere.
    """

    ids: Tensor
    targets: Tensor


def mlm_batch(
    ids: Tensor,
    mask: Tensor,
    *,
    mask_id: int,
    special: Sequence[int],
    vocab_size: int,
    generator: torch.Generator,
    share: float = 0.15,
) -> Masked:
    """Choose `share` of the tokens that count; of these 80 % become `mask_id`, 10 % any word, 10 % stay.

    Every text that has a token to guess gets at least one. Source: Devlin et al. 2019, section 3.1; the last rule is ours.

    Args:
        ids: (B, M) int64.
        mask: (B, M) int64 as from `TextTower.tokenize`.
        mask_id: of the mask token.
        special: ids never chosen nor put in, such as [PAD], [UNK], [CLS], [SEP] and [MASK].
        vocab_size: ids are below it.
        generator: on the CPU; the same state gives the same holes.
        share: of tokens to guess.

    Raises:
        ConfigError: a share outside (0, 1], or a vocabulary of special tokens alone.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"the share of tokens to guess must be above 0 and at most 1, got {share}")
    words = torch.ones(vocab_size, dtype=torch.bool)
    words[list(special)] = False
    ordinary = words.nonzero().flatten()
    if not len(ordinary):
        raise ConfigError(f"a vocabulary of {vocab_size} special tokens has no word to guess")
    on_cpu = ids.cpu()
    open_to = (mask.cpu() == COUNTED) & words[on_cpu]
    draw = torch.rand(ids.shape, generator=generator).masked_fill(~open_to, 2.0)
    first = functional.one_hot(draw.argmin(1), ids.shape[1]).bool()
    chosen = ((draw < share) | first) & open_to
    fate = torch.rand(ids.shape, generator=generator)
    other = ordinary[torch.randint(len(ordinary), ids.shape, generator=generator)]
    holes = torch.where(fate < 0.8, torch.full_like(on_cpu, mask_id), torch.where(fate < 0.9, other, on_cpu))
    changed = torch.where(chosen, holes, on_cpu)
    return Masked(changed.to(ids.device), on_cpu.masked_fill(~chosen, IGNORED).to(ids.device))


class MlmHead(nn.Module):
    """Guesses tokens from states: dense, GELU, layer norm, then the tower's own embeddings as output weights.

    The embeddings are the tower's and stay there: they are no parameters of the head, so nothing is trained or saved twice.

    Args:
        tower: a tower that embeds its tokens with one table of its own width.

    Raises:
        ConfigError: it has no such table.
    """

    def __init__(self, tower: TextTower) -> None:
        super().__init__()
        table = embedding_of(tower)
        self.dense = nn.Linear(tower.width, tower.width)
        self.norm = nn.LayerNorm(tower.width)
        self.bias = nn.Parameter(torch.zeros(table.num_embeddings))

    def forward(self, states: Tensor, tower: TextTower) -> Tensor:
        """(..., V) logits of states (..., H)."""
        hidden = self.norm(functional.gelu(self.dense(states)))
        return functional.linear(hidden, embedding_of(tower).weight.to(hidden.dtype), self.bias.to(hidden.dtype))


def mlm_loss(tower: TextTower, head: MlmHead, batch: Masked, mask: Tensor) -> Tensor:
    """() mean cross-entropy over the tokens to guess; 0 where there are none, with a gradient of zeros."""
    states = tower(batch.ids, mask).tokens
    wanted = batch.targets != IGNORED
    logits = head(states[wanted], tower).float()
    return functional.cross_entropy(logits, batch.targets[wanted], reduction="sum") / wanted.sum().clamp_min(1)


def embedding_of(tower: TextTower) -> nn.Embedding:
    """The table of token embeddings.

    Raises:
        ConfigError: none, or of another width than the states.
    """
    for module in tower.modules():
        found = getattr(module, "get_input_embeddings", None)
        table = found() if callable(found) else None
        if isinstance(table, nn.Embedding) and table.embedding_dim == tower.width:
            return table
    raise ConfigError(f"text tower {tower.name} has no table of token embeddings of width {tower.width}; MLM needs one")
