"""From token states to one vector per text."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["mean", "cls", "highest_id"]


def pool(states: Tensor, ids: Tensor, counted: Tensor, how: Pooling) -> Tensor:
    """(B, H) float32 of token states (B, M, H), token ids (B, M) and which tokens count (B, M) bool.

    `mean` averages the tokens that count; a text without any gives zeros. `cls` takes the first position.
    `highest_id` takes the token whose vocabulary number is largest.

    Source: `highest_id` is what Cardiac-CLIP's release does (`text_ids.argmax()`). The trick comes from CLIP, whose end token has
    the largest number; in a BERT vocabulary the largest number is whatever rare word piece the text holds, so two texts that
    differ in one word may be read at unrelated places. It is here for parity only. Tokens that do not count are never taken.
    """
    if how == "cls":
        return states[:, 0].float()
    if how == "highest_id":
        rows = torch.arange(ids.shape[0], device=ids.device)
        return states[rows, ids.masked_fill(~counted, -1).argmax(dim=1)].float()
    weights = counted.unsqueeze(-1).float()
    return (states.float() * weights).sum(1) / weights.sum(1).clamp_min(1.0)
