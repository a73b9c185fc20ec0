"""The two objectives that make a language model a text encoder: guess masked tokens in both directions, then tell texts apart.

Source: BehnamGhader et al. 2024 (LLM2Vec), sections 2.1 and 2.2. RenalCLIP trains the first on chest reports,
the second on renal ones.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medvl.errors import ConfigError
from medvl.models.towers.mlm import IGNORED


def mntp_loss(states: Tensor, targets: Tensor, table: Tensor) -> Tensor:
    """() mean cross-entropy of masked tokens, each guessed from the state one position earlier; 0 where there are none.

    The shift keeps the habit of the language model, whose state at i always spoke of token i + 1. A target at the first position
    has no state before it and is left out.

    Args:
        states: (B, M, H) of a bidirectional tower that read the ids with holes.
        targets: (B, M) int64, the original id where it is to be guessed, -100 elsewhere, as from `mlm_batch`.
        table: (V, H) output embeddings of the language model.
    """
    wanted = targets[:, 1:] != IGNORED
    logits = functional.linear(states[:, :-1][wanted].float(), table.float())
    return functional.cross_entropy(logits, targets[:, 1:][wanted], reduction="sum") / wanted.sum().clamp_min(1)


def simcse_loss(first: Tensor, second: Tensor, *, scale: float = 20.0) -> Tensor:
    """() mean cross-entropy of finding each text's second reading among those of the batch, from its first.

    Both readings come from the same tower in training mode, whose dropout alone makes them differ. Equal texts in a batch would
    be told apart too, so give each text once.

    Args:
        first: (B, H) pooled, any length; cosines are taken.
        second: (B, H) pooled, another reading of the same texts.
        scale: multiplier of cosines, already exponentiated.

    Raises:
        ConfigError: sizes differ, or one text alone, which has nothing to be told from.
    """
    if first.shape != second.shape or len(first) < 2:
        raise ConfigError(f"simcse needs two readings of at least two texts, got {tuple(first.shape)} and {tuple(second.shape)}")
    cosines = functional.normalize(first.float(), dim=-1) @ functional.normalize(second.float(), dim=-1).T
    return functional.cross_entropy(scale * cosines, torch.arange(len(first), device=first.device))
