"""From a captioner's probabilities to texts: greedy or by beams, with length and repetition held in check."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer
from torch import Tensor

from medvl.models.captioner import Captioner, Kept

_TIGHT = re.compile(r"(?<=\d) ?([.,]) ?(?=\d)")
_SENTENCE = re.compile(r"(^|[.!?:]\s+)([a-z])")


class Decoding(BaseModel):
    """How words are chosen.

    Args:
        beams: partial texts followed at a time; 1 is greedy.
        min_length: words before which no text ends; max_length: tokens after which it is cut, None for the captioner's limit.
        length_penalty: the score of a text is its log probability over (its length) ** this; 0 favours short texts.
        repetition_penalty: logits of words that have occurred are divided by this where positive, else multiplied (Keskar et al.
            2019); 1 for none. Reports repeat words by rights, "kidney" above all, so more than 1.1 does harm.
        no_repeat: no run of this many tokens occurs twice; 0 for no such rule. Three, as is usual elsewhere, would forbid "of the
            left kidney" a second time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    beams: int = Field(3, ge=1)
    min_length: int = Field(0, ge=0)
    max_length: int | None = Field(None, ge=2)
    length_penalty: float = 1.0
    repetition_penalty: float = Field(1.0, gt=0)
    no_repeat: int = Field(8, ge=0)


@dataclass
class _Partial:
    """A text under way: whose it is, its tokens with the start, and its log probability."""

    owner: int
    ids: list[int]
    score: float


@torch.no_grad()
def generate(model: Captioner, tokens: Tensor, pooled: Tensor, regions: Tensor, how: Decoding) -> list[tuple[list[int], float]]:
    """For each region the token ids between start and end, and their mean log probability.

    Args:
        model: put in evaluation mode for the call.
        tokens: (B, L, 2 T) from `reduce_tokens`.
        pooled: (B, P) image features.
        regions: (B,) numbers of the regions.
        how: rules of the search.
    """
    training = model.training
    model.eval()
    try:
        return _search(model, model.look(tokens, pooled, regions), regions, how)
    finally:
        model.train(training)


def _search(model: Captioner, seen: Kept, regions: Tensor, how: Decoding) -> list[tuple[list[int], float]]:
    """Beam search over all regions at once; a region is done when it has as many ended texts as beams."""
    limit = min(how.max_length or model.config.max_length, model.config.max_length)
    alive = [_Partial(k, [model.config.start_id], 0.0) for k in range(len(regions))]
    done: list[list[tuple[float, list[int], float]]] = [[] for _ in alive]
    past: Kept | None = None
    for _ in range(limit - 1):
        owners = torch.tensor([partial.owner for partial in alive])
        last = torch.tensor([[partial.ids[-1]] for partial in alive], device=regions.device)
        step = model(last, regions[owners], _rows(seen, owners), past)
        logp = _controlled(step.logits[:, -1].float().cpu(), [partial.ids for partial in alive], model, how)
        parents, grown = [], []
        for owner, rows in _grouped(alive).items():
            for parent, partial in _extended(logp, alive, owner, rows, done[owner], model.config.end_id, how):
                parents.append(parent)
                grown.append(partial)
        if not grown:
            break
        alive, past = grown, _rows(step.kept, torch.tensor(parents))
    for partial in alive:  # cut at the limit: only where nothing came to an end
        if not done[partial.owner]:
            n = max(len(partial.ids) - 1, 1)
            done[partial.owner].append((partial.score / n**how.length_penalty, partial.ids[1:], partial.score / n))
    return [max(ended)[1:] for ended in done]


def _grouped(alive: Sequence[_Partial]) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = {}
    for row, partial in enumerate(alive):
        groups.setdefault(partial.owner, []).append(row)
    return groups


def _extended(
    logp: Tensor,
    alive: Sequence[_Partial],
    owner: int,
    rows: list[int],
    done: list[tuple[float, list[int], float]],
    end: int,
    how: Decoding,
) -> Iterator[tuple[int, _Partial]]:
    """One region's best longer texts with the row each grew from; those that end go to `done`."""
    scores = torch.tensor([[alive[row].score] for row in rows]) + logp[rows]
    best, places = scores.flatten().topk(min(2 * how.beams, scores.numel()))
    grown: list[tuple[int, _Partial]] = []
    for rank, (score, place) in enumerate(zip(best.tolist(), places.tolist(), strict=True)):
        row, word = rows[place // logp.shape[1]], place % logp.shape[1]
        if score == -math.inf or len(grown) == how.beams:
            break
        if word != end:
            grown.append((row, _Partial(owner, [*alive[row].ids, word], score)))
        elif rank < how.beams:
            n = len(alive[row].ids)
            done.append((score / n**how.length_penalty, alive[row].ids[1:], score / n))
    if len(done) < how.beams:
        yield from grown


def _controlled(logits: Tensor, texts: Sequence[Sequence[int]], model: Captioner, how: Decoding) -> Tensor:
    """(B, V) log probabilities of the next word under the rules."""
    config = model.config
    for row, text in enumerate(texts):
        used = torch.tensor(sorted(set(text)))
        if how.repetition_penalty != 1:
            value = logits[row, used]
            logits[row, used] = torch.where(value > 0, value / how.repetition_penalty, value * how.repetition_penalty)
        logits[row, _repeats(text, how.no_repeat)] = -torch.inf
        if len(text) - 1 < how.min_length:
            logits[row, config.end_id] = -torch.inf
    logits[:, [config.pad_id, config.start_id]] = -torch.inf
    return logits.log_softmax(-1)


def _repeats(text: Sequence[int], n: int) -> list[int]:
    """Words that would end a run of `n` tokens that has occurred already."""
    if n == 0 or len(text) < n:
        return []
    tail = list(text[len(text) - n + 1 :])
    return [text[k + n - 1] for k in range(len(text) - n + 1) if list(text[k : k + n - 1]) == tail]


def _rows(kept: Kept, rows: Tensor) -> Kept:
    return [(k[rows], v[rows]) for k, v in kept]


def encode_text(tokenizer: Tokenizer, sentences: Sequence[str], limit: int) -> list[int]:
    """Ids between [CLS] and [SEP], of as many whole sentences as `limit` tokens hold; at least of the first, cut."""
    start, end = tokenizer.encode("", add_special_tokens=True).ids
    parts = [tokenizer.encode(sentence, add_special_tokens=False).ids for sentence in sentences]
    ids: list[int] = []
    for part in parts:
        if ids and len(ids) + len(part) > limit - 2:
            break
        ids += part
    return [start, *ids[: limit - 2], end]


def decode_text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Sentences from ids of a lower-casing WordPiece tokenizer: pieces joined, punctuation closed up, first letters raised."""
    words: list[str] = []
    for piece in (str(tokenizer.id_to_token(i)) for i in ids):
        if piece.startswith("##") and words:
            words[-1] += piece[2:]
        else:
            words.append(piece)
    text = re.sub(r" ([.,;:!?)%])", r"\1", re.sub(r"([(]) ", r"\1", " ".join(words)))
    text = re.sub(r" ?([-/]) ?", r"\1", _TIGHT.sub(r"\1", text))
    return _SENTENCE.sub(lambda m: m.group(1) + m.group(2).upper(), text)
