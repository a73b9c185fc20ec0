"""The captioner sees no word ahead, goes on word by word as it would all at once, and its search keeps to its rules."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from medvl.errors import ConfigError
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.write import report_of
from medvl.models.captioner import Captioner, CaptionerConfig, pad, reduce_tokens
from medvl.models.decoding import Decoding, decode_text, encode_text, generate
from medvl.models.encoders.base import Encoded
from medvl.models.tokenizer import train_tokenizer
from medvl.text.labels import extract
from medvl.text.report import parse_report, split_sentences

SHAPE = CaptionerConfig(
    regions=("left", "right"), grid=2, token_dim=6, pooled_dim=5, vocab_size=13, pad_id=0, start_id=1, end_id=2,
    width=16, layers=2, heads=2, feed=24, max_length=9, dropout=0.1,
)  # fmt: skip


def made(**changes: object) -> tuple[Captioner, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = Captioner(SHAPE.model_copy(update=changes)).eval()
    for p in model.parameters():  # far enough from nothing that words differ
        p.data += 0.3 * torch.randn_like(p)
    return model, torch.randn(3, 8, 12), torch.randn(3, 5), torch.tensor([0, 1, 1])


def test_reduced_tokens_are_means_and_maxima_of_cells() -> None:
    tokens = torch.randn(2, 4 * 4 * 4, 6)
    found = reduce_tokens(Encoded(tokens, (4, 4, 4), tokens.mean(1)), 2)
    cube = tokens.view(2, 2, 2, 2, 2, 2, 2, 6)  # each axis as cell and place in it
    cells = cube.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(2, 8, 8, 6)
    torch.testing.assert_close(found, torch.cat([cells.mean(2), cells.amax(2)], -1))
    with pytest.raises(ConfigError, match="smaller grid"):
        reduce_tokens(Encoded(tokens, (4, 4, 4), tokens.mean(1)), 5)


def test_no_word_depends_on_later_ones_and_all_depend_on_the_image_and_region() -> None:
    model, tokens, pooled, region = made()
    ids = torch.randint(3, 13, (3, 6))
    seen = model.look(tokens, pooled, region)
    before = model(ids, region, seen).logits
    changed = ids.clone()
    changed[:, 4] = (changed[:, 4] - 3 + 1) % 10 + 3
    after = model(changed, region, seen).logits
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().amax() > 1e-3
    for other in (
        model.look(tokens + 1, pooled, region),
        model.look(tokens, pooled + 1, region),
        model.look(tokens, pooled, 1 - region),
    ):
        assert (model(ids, region, other).logits - before).abs().amax(-1).min() > 1e-4


def test_word_by_word_is_the_same_as_all_at_once() -> None:
    model, tokens, pooled, region = made()
    ids = torch.randint(3, 13, (3, 7))
    seen = model.look(tokens, pooled, region)
    whole, past, steps = model(ids, region, seen).logits, None, []
    for k in range(7):
        step = model(ids[:, k : k + 1], region, seen, past)
        past = step.kept
        steps.append(step.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="max_length 9"):
        model(torch.ones(1, 10, dtype=torch.long), region[:1], [(k[:1], v[:1]) for k, v in seen])


@torch.no_grad()
def test_loss_is_the_mean_cross_entropy_of_words_without_padding() -> None:
    model, tokens, pooled, region = made()
    rows = [[1, 5, 6, 2], [1, 7, 2], [1, 4, 4, 8, 2]]
    total, n = 0.0, 0
    for k, row in enumerate(rows):
        one = torch.tensor([row])
        seen = model.look(tokens[k : k + 1], pooled[k : k + 1], region[k : k + 1])
        logp = model(one[:, :-1], region[k : k + 1], seen).logits.log_softmax(-1)[0]
        total -= sum(float(logp[i, word]) for i, word in enumerate(row[1:]))
        n += len(row) - 1
    assert float(model.loss(pad(rows, 0), tokens, pooled, region)) == pytest.approx(total / n, rel=1e-5)
    smooth = model.loss(pad(rows, 0), tokens, pooled, region, smoothing=0.3)
    assert float(smooth) > 0 and float(smooth) != pytest.approx(total / n, rel=1e-3)


def scored(model: Captioner, text: list[int], tokens: torch.Tensor, pooled: torch.Tensor, region: torch.Tensor) -> float:
    logits = model(torch.tensor([[1, *text]]), region, model.look(tokens, pooled, region)).logits[0].clone()
    logits[:, [0, 1]] = -torch.inf
    logp = logits.log_softmax(-1)
    return sum(float(logp[i, word]) for i, word in enumerate([*text, 2]))


@torch.no_grad()
def test_wide_beams_find_the_best_text_of_all() -> None:
    model, tokens, pooled, region = made(vocab_size=6, max_length=4)
    every = [list(t) for n in range(3) for t in itertools.product((3, 4, 5), repeat=n)]
    for alpha in (0.0, 1.0):
        how = Decoding(beams=40, no_repeat=0, length_penalty=alpha)
        found = generate(model, tokens, pooled, region, how)
        for k, (ids, mean) in enumerate(found):
            one = tokens[k : k + 1], pooled[k : k + 1], region[k : k + 1]
            best = max(every, key=lambda t: scored(model, t, *one) / (len(t) + 1) ** alpha)
            assert ids == best
            assert mean == pytest.approx(scored(model, best, *one) / (len(best) + 1), abs=1e-5)


@torch.no_grad()
def test_greedy_takes_the_likeliest_word_each_time_and_alone_as_in_a_batch() -> None:
    model, tokens, pooled, region = made()
    how = Decoding(beams=1, no_repeat=0)
    together = generate(model, tokens, pooled, region, how)
    for k in range(3):
        ids = [1]
        seen = model.look(tokens[k : k + 1], pooled[k : k + 1], region[k : k + 1])
        while len(ids) < 9:
            logits = model(torch.tensor([ids]), region[k : k + 1], seen).logits[0, -1]
            logits[[0, 1]] = -torch.inf
            if int(logits.argmax()) == 2:
                break
            ids.append(int(logits.argmax()))
        alone = generate(model, tokens[k : k + 1], pooled[k : k + 1], region[k : k + 1], how)[0]
        assert together[k][0] == ids[1:] == alone[0]


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_length_and_repetition_are_held_in_check(beams: int) -> None:
    model, tokens, pooled, region = made(max_length=24)
    model.train()
    for ids, _ in generate(model, tokens, pooled, region, Decoding(beams=beams, no_repeat=2, min_length=6, max_length=12)):
        runs = list(itertools.pairwise(ids))
        assert len(set(runs)) == len(runs)
        assert 6 <= len(ids) <= 11
    assert model.training  # as it was
    free = [len(set(ids)) for ids, _ in generate(model, tokens, pooled, region, Decoding(beams=1, no_repeat=0, min_length=20))]
    held = Decoding(beams=1, no_repeat=0, min_length=20, repetition_penalty=5.0)
    assert sum(len(set(ids)) for ids, _ in generate(model, tokens, pooled, region, held)) > sum(free)


def test_texts_survive_the_tokenizer_as_far_as_the_extractor_reads_them(tmp_path: Path) -> None:
    reports = [report_of(sample_patient(3, k)) for k in range(40)]
    tokenizer = Tokenizer.from_str(train_tokenizer(reports, 2500).to_str())
    for text in reports:
        lines = [line for line in text.splitlines() if line]
        back = "\n".join(decode_text(tokenizer, encode_text(tokenizer, split_sentences(line), 500)[1:-1]) for line in lines)
        assert json.dumps(extract(parse_report(back))) == json.dumps(extract(parse_report(text)))


def test_long_texts_are_cut_between_sentences() -> None:
    tokenizer = train_tokenizer(["one two three four."] * 3, 200)
    sentences = ["one two.", "three four.", "one four."]
    full = encode_text(tokenizer, sentences, 100)
    assert decode_text(tokenizer, full[1:-1]) == "One two. Three four. One four."
    assert decode_text(tokenizer, encode_text(tokenizer, sentences, len(full) - 1)[1:-1]) == "One two. Three four."
    assert len(encode_text(tokenizer, sentences, 4)) == 4


def test_odd_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 heads"):
        Captioner(SHAPE.model_copy(update={"heads": 3}))
