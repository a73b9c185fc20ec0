"""From a captioner's probabilities to texts: greedy or by beams, with length and repetition held in check."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
        length_penalty: the score of a text is its log probability over (its length) ** this; 0 favours short texts (Wu et al. 2016
            in its plain form).
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


@torch.no_grad()
def generate(model: Captioner, tokens: Tensor, pooled: Tensor, region: int, how: Decoding) -> tuple[list[int], float]:
    """Token ids between start and end, and their mean log probability, for one region: tokens (L, 2 T), pooled (P,).

    The model is put in evaluation mode for the call.
    """
    training = model.training
    model.eval()
    try:
        return _search(model, tokens[None], pooled[None], torch.tensor([region], device=tokens.device), how)
    finally:
        model.train(training)


def _search(model: Captioner, tokens: Tensor, pooled: Tensor, region: Tensor, how: Decoding) -> tuple[list[int], float]:
    end, limit = model.config.end_id, min(how.max_length or model.config.max_length, model.config.max_length)
    seen = model.look(tokens, pooled, region)
    texts, scores, past = [[model.config.start_id]], torch.zeros(1), None
    done: list[tuple[float, list[int], float]] = []
    while len(texts[0]) < limit and texts:
        last = torch.tensor([[text[-1]] for text in texts], device=tokens.device)
        step = model(last, region.expand(len(texts)), _rows(seen, [0] * len(texts)), past)
        logp = _controlled(step.logits[:, -1].float().cpu(), texts, model, how)
        best, where = (scores[:, None] + logp).flatten().topk(min(2 * how.beams, logp.numel()))
        grown: list[tuple[float, int, int]] = []
        for score, place in zip(best.tolist(), where.tolist(), strict=True):
            parent, word = divmod(place, logp.shape[1])
            if score == -float("inf"):
                continue
            if word == end:
                done.append((score / len(texts[parent]) ** how.length_penalty, texts[parent][1:], score / len(texts[parent])))
            elif len(grown) < how.beams:
                grown.append((score, parent, word))
            if how.beams == 1:
                break
        if not grown or len(done) >= how.beams:
            break
        texts = [[*texts[parent], word] for _, parent, word in grown]
        scores, past = torch.tensor([score for score, _, _ in grown]), _rows(step.kept, [parent for _, parent, _ in grown])
    if not done:
        n = max(len(texts[0]) - 1, 1)
        done = [(float(scores[0]) / n**how.length_penalty, texts[0][1:], float(scores[0]) / n)]
    _, text, mean = max(done)
    return text, mean


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


def _rows(kept: Kept, rows: list[int]) -> Kept:
    return [(k[rows], v[rows]) for k, v in kept]


def encode_text(tokenizer: Tokenizer, sentences: Sequence[str], limit: int) -> list[int]:
    """Ids between [CLS] and [SEP], of as many whole sentences as `limit` tokens hold; at least of the first, cut."""
    parts = [tokenizer.encode(sentence, add_special_tokens=False).ids for sentence in sentences]
    ids: list[int] = []
    for part in parts:
        if ids and len(ids) + len(part) > limit - 2:
            break
        ids += part
    return [tokenizer.token_to_id("[CLS]"), *ids[: limit - 2], tokenizer.token_to_id("[SEP]")]


def decode_text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Sentences from ids of a lower-casing WordPiece tokenizer: pieces joined, punctuation closed up, first letters raised."""
    words: list[str] = []
    for piece in (tokenizer.id_to_token(i) for i in ids):
        if piece.startswith("##") and words:
            words[-1] += piece[2:]
        else:
            words.append(piece)
    text = re.sub(r" ([.,;:!?)%])", r"\1", re.sub(r"([(]) ", r"\1", " ".join(words)))
    text = re.sub(r" ?([-/]) ?", r"\1", _TIGHT.sub(r"\1", text))
    return _SENTENCE.sub(lambda m: m.group(1) + m.group(2).upper(), text)
