"""The contract of every text tower, shown on the small BERT."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from medvl.errors import ConfigError
from medvl.models.tokenizer import train_tokenizer
from medvl.models.towers import TextTower, build_tower
from medvl.models.towers.pooling import pool

TEXTS = ["A Mass of 42 mm in the left kidney.", "No hydronephrosis.", "The right kidney measures 108 mm."]
SHAPE = {"hidden_size": 16, "layers": 2, "heads": 2, "intermediate_size": 24, "max_length": 24}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, 120)


def tower(tokenizer: Tokenizer, **options: Any) -> TextTower:
    torch.manual_seed(7)
    return build_tower("bert", options={**SHAPE, **options}, tokenizer=tokenizer).eval()


def test_shapes_padding_and_mask(tokenizer: Tokenizer) -> None:
    made = tower(tokenizer)
    found = made.tokenize(TEXTS)
    assert found["ids"].dtype == found["mask"].dtype == torch.int64
    assert found["ids"].shape == found["mask"].shape == (3, int(found["mask"].sum(1).max()))
    assert made.tokenize(TEXTS, length=20)["ids"].shape == (3, 20)
    out = made(**made.tokenize(TEXTS, length=20))
    assert (out.pooled.shape, out.tokens.shape, out.mask.shape) == ((3, 16), (3, 20, 16), (3, 20))
    assert out.mask.dtype == torch.bool and out.pooled.dtype == torch.float32


def test_a_cut_text_keeps_its_closing_token(tokenizer: Tokenizer) -> None:
    ids = tower(tokenizer).tokenize(["left kidney " * 40], length=9)["ids"]
    assert ids.shape == (1, 9) and int(ids[0, -1]) == tokenizer.token_to_id("[SEP]")
    with pytest.raises(ConfigError, match="24 tokens cannot pad to 25"):
        tower(tokenizer).tokenize(["x"], length=25)


def test_no_texts_and_an_empty_text(tokenizer: Tokenizer) -> None:
    made = tower(tokenizer)
    assert made.tokenize([])["ids"].shape == (0, 1)
    assert torch.isfinite(made(**made.tokenize([""])).pooled).all()


@pytest.mark.parametrize("pooling", ["mean", "cls", "highest_id"])
def test_pooling_by_hand_and_padding(tokenizer: Tokenizer, pooling: str) -> None:
    made = tower(tokenizer, pooling=pooling)
    together = made(**made.tokenize(TEXTS, length=24))
    for row, text in enumerate(TEXTS):
        ids = tokenizer.encode(text).ids
        states = made.bert(input_ids=torch.tensor([ids])).last_hidden_state[0].detach()  # type: ignore[union-attr, operator]
        place = {"cls": 0, "highest_id": max(range(len(ids)), key=ids.__getitem__)}.get(pooling)
        expected = sum(states) / len(ids) if place is None else states[place]
        torch.testing.assert_close(together.pooled[row], expected, atol=1e-5, rtol=1e-5)


def test_highest_id_is_the_release_where_padding_is_zero() -> None:
    """Cardiac-CLIP: `states[arange(B), ids.argmax(-1)]`; [CLS] 101 and [SEP] 102 lose against any word piece."""
    ids = torch.tensor([[101, 2007, 9456, 2003, 102, 0], [101, 1996, 102, 0, 0, 0]])
    states = torch.randn(2, 6, 4)
    assert torch.equal(pool(states, ids, ids > 0, "highest_id"), states[torch.arange(2), ids.argmax(-1)])
    assert torch.equal(pool(states, ids, ids > 0, "highest_id")[1], states[1, 1])


def test_mean_leaves_out_tokens_that_are_only_read(tokenizer: Tokenizer) -> None:
    made = tower(tokenizer)
    found = made.tokenize(TEXTS[:1])
    mask = found["mask"].clone()
    mask[0, :3] = 2
    out = made(found["ids"], mask)
    torch.testing.assert_close(out.tokens, made(**found).tokens)
    torch.testing.assert_close(out.pooled[0], out.tokens[0, 3:].mean(0))
    assert not out.mask[0, :3].any() and out.mask[0, 3:].all()


def test_frozen_has_no_gradient_and_no_dropout(tokenizer: Tokenizer) -> None:
    made = tower(tokenizer, frozen=True).train()
    found = made.tokenize(TEXTS)
    first, second = made(**found), made(**found)
    assert torch.equal(first.pooled, second.pooled) and not first.pooled.requires_grad
    assert not any(p.requires_grad for p in made.parameters()) and not made.training
    free = tower(tokenizer).train()
    assert free(**found).pooled.requires_grad and not torch.equal(free(**found).pooled, free(**found).pooled)


def test_fingerprint_follows_weights_options_and_tokenizer(tokenizer: Tokenizer) -> None:
    made, same = tower(tokenizer), tower(tokenizer)
    first = made.fingerprint()
    made.tokenize(["left kidney " * 40], length=9)
    assert made.fingerprint() == same.fingerprint() == first == tower(tokenizer, frozen=True).fingerprint()
    other = train_tokenizer(["word " * 3] * 3 + TEXTS * 3, 120)
    assert other.get_vocab_size() != tokenizer.get_vocab_size() or other.to_str() != tokenizer.to_str()
    assert len({first, tower(other).fingerprint(), tower(tokenizer, pooling="cls").fingerprint()}) == 3
    with torch.no_grad():
        next(made.parameters())[0, 0] += 1e-6
    assert made.fingerprint() != first


def test_wrong_names_and_options(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="did you mean bert"):
        build_tower("brt", options={})
    with pytest.raises(ConfigError, match=r"text tower bert: pooling: .*known: \["):
        build_tower("bert", options={"pooling": "max"}, tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        build_tower("bert", options={})
