"""Vectors are computed once, survive kills and neighbours, and tell nothing of the texts."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from medvl.errors import ConfigError
from medvl.models import text_cache
from medvl.models.text_cache import embed_cached
from medvl.models.tokenizer import train_tokenizer
from medvl.models.towers import TextTower, build_tower

TEXTS = [f"The left kidney measures {n} mm{' and holds a small cyst' * (n % 3)}." for n in range(20)]
SHAPE = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 24, "max_length": 40}


TOKENIZER = train_tokenizer(TEXTS, 200).to_str()


def make(seed: int = 5, tokenizer: str = TOKENIZER, **options: Any) -> TextTower:
    torch.manual_seed(seed)
    return build_tower("bert", options={**SHAPE, **options}, tokenizer=Tokenizer.from_str(tokenizer))


class Counting:
    """Counts what a tower encodes."""

    def __init__(self, tower: TextTower, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[str] = []
        embed = tower.embed

        def counted(texts: list[str], *, batch: int) -> Tensor:
            self.texts += texts
            return embed(texts, batch=batch)

        monkeypatch.setattr(tower, "embed", counted)


def expected(tower: TextTower, texts: list[str]) -> Tensor:
    """One by one, without the cache."""
    with torch.no_grad():
        return torch.cat([tower(**tower.tokenize([text])).pooled for text in texts])


def test_each_text_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = make()
    count = Counting(tower, monkeypatch)
    wanted = TEXTS[:8] + TEXTS[3:6]
    first = embed_cached(tower, wanted, tmp_path, 3)
    assert sorted(count.texts) == sorted(TEXTS[:8])
    torch.testing.assert_close(first, expected(tower, wanted), atol=1e-5, rtol=1e-5)
    again = embed_cached(tower, [*reversed(wanted), TEXTS[19]], tmp_path, 3)
    assert count.texts[8:] == [TEXTS[19]]
    assert torch.equal(again[:-1], first.flip(0))
    assert embed_cached(tower, [], tmp_path, 3).shape == (0, 16) and len(count.texts) == 9


def test_dropout_is_off_and_the_mode_is_kept(tmp_path: Path) -> None:
    tower = make().train()
    found = embed_cached(tower, TEXTS, tmp_path, 4)
    assert tower.training and not found.requires_grad
    torch.testing.assert_close(found, expected(tower.eval(), TEXTS), atol=1e-5, rtol=1e-5)


def test_another_tower_has_its_own_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed_cached(make(5), TEXTS, tmp_path, 4)
    for other in (make(6), make(5, pooling="cls")):
        count = Counting(other, monkeypatch)
        embed_cached(other, TEXTS, tmp_path, 4)
        assert len(count.texts) == 20
    same = make(5, frozen=True)
    count = Counting(same, monkeypatch)
    embed_cached(same, TEXTS, tmp_path, 4)
    assert not count.texts and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "noise"])
def test_a_damaged_shard_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    tower = make()
    monkeypatch.setattr(text_cache, "SHARD", 10)
    good = embed_cached(tower, TEXTS, tmp_path, 4)
    shards = sorted(tmp_path.rglob("*.safetensors"))
    assert len(shards) == 2
    raw = bytearray(shards[0].read_bytes())
    flipped = bytes(raw[:-5]) + bytes([raw[-5] ^ 1]) + bytes(raw[-4:])
    shards[0].write_bytes({"cut": bytes(raw[:-7]), "bit": flipped, "empty": b"", "noise": b"x" * 200}[damage])
    count = Counting(tower, monkeypatch)
    with pytest.warns(UserWarning, match="is damaged; set aside"):
        found = embed_cached(tower, TEXTS, tmp_path, 4)
    assert len(count.texts) == 10 and len(list(tmp_path.rglob("*.broken"))) == 1
    torch.testing.assert_close(found, good, atol=1e-6, rtol=1e-6)
    embed_cached(tower, TEXTS, tmp_path, 4)
    assert len(count.texts) == 10


def test_a_kill_keeps_finished_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = make()
    monkeypatch.setattr(text_cache, "SHARD", 8)

    def stop(done: int, total: int) -> None:
        assert (done, total) == (8, 20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_cached(tower, TEXTS, tmp_path, 4, progress=stop)
    (next(tmp_path.iterdir()) / "1-abc.part").write_bytes(b"half a shard")
    count, seen = Counting(tower, monkeypatch), []
    found = embed_cached(tower, TEXTS, tmp_path, 4, progress=lambda done, total: seen.append((done, total)))
    assert len(count.texts) == 12 and seen == [(8, 12), (12, 12)]
    torch.testing.assert_close(found, expected(tower, TEXTS), atol=1e-5, rtol=1e-5)


def test_texts_are_not_written(tmp_path: Path) -> None:
    embed_cached(make(), [*TEXTS, "Secretname, born 1950"], tmp_path, 4)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"kidney" not in written and b"Secret" not in written
    assert not list(tmp_path.rglob("*.part"))


def test_a_vector_that_is_not_finite_is_not_kept(tmp_path: Path) -> None:
    tower = make()
    with torch.no_grad():
        next(tower.parameters()).fill_(torch.nan)
    with pytest.raises(ConfigError, match="not finite"):
        embed_cached(tower, TEXTS, tmp_path, 4)
    assert not list(tmp_path.rglob("*.safetensors"))


def _work(folder: Path, start: int, tokenizer: str) -> None:
    torch.set_num_threads(1)
    text_cache.SHARD = 2
    embed_cached(make(tokenizer=tokenizer), TEXTS[start : start + 14], folder, 2)


@pytest.mark.slow
def test_two_processes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_work, args=(tmp_path, start, TOKENIZER)) for start in (0, 6)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    tower = make()
    count = Counting(tower, monkeypatch)
    found = embed_cached(tower, TEXTS, tmp_path, 4)
    assert not count.texts
    torch.testing.assert_close(found, expected(tower, TEXTS), atol=1e-5, rtol=1e-5)
