"""The image tower is frozen for good: reading tokens and training on them change no weight and no running statistic of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medvl.data.cohort import Cohort, describe
from medvl.errors import ConfigError
from medvl.heads.draft_tokens import TokenCache, cache_tokens
from medvl.heads.draft_train import (
    Captions,
    CaptionTraining,
    caption_loss,
    captions,
    load_captioner,
    save_captioner,
    shapes,
    train_captioner,
)
from medvl.imaging.preprocess import Contract, RegionSpec
from medvl.models.captioner import reduce_tokens
from medvl.models.clip import RegionClip
from medvl.models.config import ClipConfig, ImageTowerConfig, TextTowerConfig
from medvl.models.decoding import Decoding, generate
from medvl.models.tokenizer import train_tokenizer

GRID = (16, 16, 16)
REGIONS = ("kidney_left", "kidney_right", "chest")
KINDS = {"kidney": ("kidney_left", "kidney_right"), "chest": ("chest",)}
CASES = [describe(11, k) for k in range(6)]


def world() -> tuple[RegionClip, Cohort, Contract]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    image = ImageTowerConfig(widths=(4, 4, 4, 4), token_dim=6, value_dim=3, n_queries=2, peak_dim=4)
    text = TextTowerConfig(vocab_size=300, hidden_size=8, layers=1, heads=2, intermediate_size=8)
    tokenizer = train_tokenizer([c["report"] for c in CASES], 300)
    clip = RegionClip(ClipConfig(image=image, text=text, embed_dim=8), tokenizer)
    windows = ((-150.0, 250.0), (-200.0, 1000.0))
    contract = Contract(tuple(RegionSpec(name, GRID, (3.0, 3.0, 3.0), windows) for name in REGIONS))
    hu = rng.integers(-200, 300, (6, 3, *GRID)).astype(np.int16)
    covered = np.ones((6, 3), np.float32)
    covered[1, 2] = 0.2
    return clip, Cohort(hu, covered, CASES, REGIONS), contract


def test_reading_and_training_leave_the_tower_bit_for_bit_as_it_was(tmp_path: Path) -> None:
    clip, cohort, contract = world()
    clip.train()  # as careless a caller as can be
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    cache = cache_tokens(clip, cohort, contract, KINDS, tmp_path, grid=2)
    tokenizer = clip.text.tokenizer
    config = shapes(cache, REGIONS, tokenizer, width=16, layers=1, heads=2, feed=16)
    data = captions(cache, cohort, tokenizer, config.max_length)
    _, curve = train_captioner(config, data, data, CaptionTraining(steps=12, batch=8, warmup=2, validate_every=6))
    after = clip.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any("running_mean" in name for name in before)
    assert clip.training and all(module.training for module in clip.modules())
    assert all(p.grad is None for p in clip.parameters())
    assert curve[-1][2] < curve[0][2]


def test_the_cache_holds_what_the_tower_in_evaluation_mode_gives(tmp_path: Path) -> None:
    clip, cohort, contract = world()
    cache = cache_tokens(clip, cohort, contract, KINDS, tmp_path, grid=2, batch=4)
    assert len(cache) == 17 and (1, 2) not in set(zip(cache.rows.tolist(), cache.columns.tolist(), strict=True))
    assert cache.tokens.dtype == np.float16
    clip.eval()
    low, high = np.array([-150, -200]), np.array([250, 1000])
    for k in (0, 5, 16):
        hu = cohort.hu[cache.rows[k], cache.columns[k]].astype(np.float64)
        pixels = np.clip((hu[None] - low[:, None, None, None]) / (high - low)[:, None, None, None], 0, 1)
        kind = torch.tensor([int(cache.columns[k] == 2)])
        with torch.no_grad():
            encoded = clip.image(torch.from_numpy(pixels[None]).float())
            pooled = clip.pool(encoded, kind)[0]
        np.testing.assert_allclose(cache.tokens[k], reduce_tokens(encoded, 2)[0].numpy(), atol=2e-3, rtol=2e-3)
        np.testing.assert_allclose(cache.pooled[k], pooled.numpy(), atol=1e-4)


def test_another_tower_or_cohort_never_meets_an_old_cache(tmp_path: Path) -> None:
    clip, cohort, contract = world()
    first = cache_tokens(clip, cohort, contract, KINDS, tmp_path, grid=2)
    stamp = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    cache_tokens(clip, cohort, contract, KINDS, tmp_path, grid=2)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == stamp
    with torch.no_grad():
        next(clip.image.parameters()).add_(0.5)
    second = cache_tokens(clip, cohort, contract, KINDS, tmp_path, grid=2)
    assert not np.array_equal(first.pooled, second.pooled)


def fake(n: int = 24) -> Captions:
    rng = np.random.default_rng(1)
    which = rng.integers(2, size=n)
    tokens = np.where(which[:, None, None] == 1, 1.0, -1.0) * np.ones((n, 8, 12))
    cache = TokenCache(np.arange(n), np.zeros(n, np.int64), tokens.astype(np.float16), np.zeros((n, 5), np.float32))
    return Captions(cache, np.arange(n), [[2, 5, 6, 7, 3] if one else [2, 8, 9, 3] for one in which])


def test_it_learns_to_say_what_the_image_shows_the_same_each_time() -> None:
    data = fake()
    tokenizer = train_tokenizer(["a b c d e f g h."] * 3, 60)
    config = shapes(data.cache, ("kidney_left",), tokenizer, width=16, layers=1, heads=2, feed=16, max_length=8)
    how = CaptionTraining(steps=90, batch=8, learning_rate=1e-2, warmup=3, validate_every=30, smoothing=0.0)
    model, _ = train_captioner(config, data, data, how)
    found = generate(model, *data.cache.batch(np.arange(24)), Decoding(no_repeat=0))
    assert [ids for ids, _ in found] == [row[1:-1] for row in data.ids]
    assert caption_loss(model, data) < 0.2
    again, _ = train_captioner(config, data, data, how)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_captioner_survives_the_disk_and_fits_its_own_tower_only(tmp_path: Path) -> None:
    data, tokenizer = fake(), train_tokenizer(["a b c d e f g h."] * 3, 60)
    config = shapes(data.cache, ("kidney_left",), tokenizer, width=16, layers=1, heads=2, feed=16, max_length=8)
    options = CaptionTraining(steps=3, batch=4, warmup=1)
    model, _ = train_captioner(config, data, data, options)
    save_captioner(tmp_path, model, tokenizer, "ab12", options, Decoding(beams=2))
    back, words, how = load_captioner(tmp_path, "ab12")
    assert back.config == config and how.beams == 2 and words.to_str() == tokenizer.to_str()
    inputs = data.cache.batch(np.arange(4))
    assert generate(back, *inputs, how) == generate(model, *inputs, how)
    with pytest.raises(ConfigError, match="other weights"):
        load_captioner(tmp_path, "cd34")
    with pytest.raises(ConfigError, match="no captioner"):
        load_captioner(tmp_path / "nowhere", "ab12")


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match="smoothing"):
        CaptionTraining(smoothing=1.0)
    with pytest.raises(ConfigError, match="above 0"):
        CaptionTraining(steps=0)
    data, none = fake(), Captions(fake().cache, np.zeros(0, np.int64), [])
    config = shapes(data.cache, ("kidney_left",), train_tokenizer(["a b."] * 3, 60), width=16, heads=2)
    with pytest.raises(ConfigError, match="both need regions"):
        train_captioner(config, data, none, CaptionTraining())
