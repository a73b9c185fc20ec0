"""A free text as a query for images: a short statement less its negation, anything longer as it stands."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from medvl.text.twins import twins

Embed = Callable[[list[str]], Tensor]


def query_of(text: str, embed: Embed, *, literal: bool = False) -> tuple[Tensor, bool]:
    """(E,) vector whose product with an image embedding ranks images, and whether the negation was taken off.

    Args:
        text: what the images should show.
        embed: texts to unit embeddings (N, E).
        literal: the embedding of the text alone, whatever it is.
    """
    pair = None if literal else twins(text)
    if pair is None:
        return embed([text])[0], False
    held, denied = (functional.normalize(embed(sentences).mean(0), dim=0) for sentences in pair)
    return held - denied, True
