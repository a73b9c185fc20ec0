"""Holes where they belong, a loss that equals the library's, and words learnt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertForMaskedLM

from medvl.errors import ConfigError
from medvl.models.tokenizer import SPECIALS, train_tokenizer
from medvl.models.towers import TextTower, build_tower
from medvl.models.towers.mlm import MlmHead, mlm_batch, mlm_loss

TEXTS = [f"The {side} kidney holds a {what}." for side in ("left", "right") for what in ("mass", "cyst", "stone")]
SHAPE = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 32, "max_length": 16, "pooling": "mean"}
HOLES: dict[str, Any] = {"mask_id": 4, "special": range(5), "vocab_size": 50}


def make() -> TextTower:
    torch.manual_seed(3)
    return build_tower("bert", options=SHAPE, tokenizer=train_tokenizer(TEXTS * 3, 120))


def test_shares_of_the_holes() -> None:
    ids = torch.randint(5, 50, (200, 60), generator=torch.Generator().manual_seed(1))
    ids[:, 0], ids[:, -5:] = 2, 0
    mask = torch.ones_like(ids)
    mask[:, -5:], mask[:, 1] = 0, 2
    found = mlm_batch(ids, mask, **HOLES, generator=torch.Generator().manual_seed(2))
    chosen = found.targets != -100
    assert not chosen[:, :2].any() and not chosen[:, -5:].any()
    assert torch.equal(found.targets[chosen], ids[chosen]) and torch.equal(found.ids[~chosen], ids[~chosen])
    assert float(chosen[:, 2:-5].float().mean()) == pytest.approx(0.15, abs=0.01)
    now, before = found.ids[chosen], ids[chosen]
    assert float((now == 4).float().mean()) == pytest.approx(0.8, abs=0.03)
    assert float((now == before).float().mean()) == pytest.approx(0.1 + 0.1 / 45, abs=0.02)
    assert int(now[now != 4].min()) >= 5


def test_the_generator_decides_and_every_text_has_a_hole() -> None:
    ids = torch.tensor([[2, 9, 3, 0], [2, 3, 0, 0]])
    mask = (ids > 0).long()
    for seed in range(20):
        one, two = (mlm_batch(ids, mask, **HOLES, generator=torch.Generator().manual_seed(seed)) for _ in "ab")
        assert torch.equal(one.ids, two.ids) and one.targets.tolist() == [[-100, 9, -100, -100], [-100] * 4]


def test_loss_is_the_librarys() -> None:
    tower = make()
    head = MlmHead(tower)
    with torch.no_grad():
        head.bias.normal_()
    bert: Any = next(m for m in tower.modules() if type(m).__name__ == "BertModel")
    library = BertForMaskedLM(bert.config).eval()
    library.bert.load_state_dict(bert.state_dict())
    transform = library.cls.predictions.transform
    transform.dense, transform.LayerNorm = head.dense, head.norm
    transform.LayerNorm.eps = 1e-5
    library.cls.predictions.bias = head.bias
    library.cls.predictions.decoder.weight, library.cls.predictions.decoder.bias = (
        bert.embeddings.word_embeddings.weight,
        head.bias,
    )
    found = tower.tokenize(TEXTS)
    size = bert.config.vocab_size
    batch = mlm_batch(**found, mask_id=4, special=range(5), vocab_size=size, generator=torch.Generator().manual_seed(0))
    expected = library(input_ids=batch.ids, attention_mask=found["mask"], labels=batch.targets).loss
    torch.testing.assert_close(mlm_loss(tower, head, batch, found["mask"]), expected)


def test_nothing_to_guess_is_zero() -> None:
    tower = make()
    head, found = MlmHead(tower), tower.tokenize([""])
    batch = mlm_batch(**found, **HOLES, generator=torch.Generator())
    loss = mlm_loss(tower, head, batch, found["mask"])
    loss.backward()
    assert loss.item() == 0 and all(bool(torch.isfinite(p.grad).all()) for p in tower.parameters() if p.grad is not None)


def test_embeddings_are_shared_not_owned() -> None:
    tower = make()
    head = MlmHead(tower)
    assert {name for name, _ in head.named_parameters()} == {"dense.weight", "dense.bias", "norm.weight", "norm.bias", "bias"}
    found = tower.tokenize(TEXTS)
    batch = mlm_batch(**found, mask_id=4, special=range(5), vocab_size=len(head.bias), generator=torch.Generator())
    mlm_loss(tower, head, batch, found["mask"]).backward()
    table = next(p for name, p in tower.named_parameters() if name.endswith("word_embeddings.weight"))
    never = [i for i in range(len(head.bias)) if i not in batch.ids]
    assert table.grad is not None and float(table.grad[never].abs().sum()) > 0


def test_it_learns_the_words() -> None:
    tower = make().train()
    head, found = MlmHead(tower), tower.tokenize(TEXTS)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW([*tower.parameters(), *head.parameters()], lr=5e-3)
    losses = []
    for _ in range(80):
        batch = mlm_batch(
            **found, mask_id=4, special=range(len(SPECIALS)), vocab_size=len(head.bias), generator=generator, share=0.3
        )
        loss = mlm_loss(tower, head, batch, found["mask"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.6 * losses[0]


def test_what_is_refused() -> None:
    ids = torch.ones(1, 2, dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"above 0 and at most 1, got 0\.0"):
        mlm_batch(ids, ids, **HOLES, generator=torch.Generator(), share=0.0)
    with pytest.raises(ConfigError, match="5 special tokens has no word"):
        mlm_batch(ids, ids, **{**HOLES, "vocab_size": 5}, generator=torch.Generator())
