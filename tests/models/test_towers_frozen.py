"""A frozen tower that can be built anew is not written with every checkpoint; its fingerprint is, and is checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_towers_hf import config, vocabulary
from torch import nn
from transformers import BertModel, BertTokenizer

from medvl.models.towers import build_tower


class Pair(nn.Module):
    """A tower beside something that learns."""

    def __init__(self, folder: Path, frozen: bool) -> None:
        super().__init__()
        self.text = build_tower("hf", options={"path": str(folder), "frozen": frozen})
        self.own = nn.Linear(3, 2)


def encoder(place: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    BertModel(config()).save_pretrained(place)
    BertTokenizer(vocab=str(vocabulary(place)), do_lower_case=True).save_pretrained(place)
    return place


def test_a_frozen_tower_is_a_fingerprint_in_the_weights_and_comes_back_whole(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "a", 1)
    pair = Pair(folder, frozen=True)
    kept = pair.state_dict()
    assert set(kept) == {"text.made_of", "own.weight", "own.bias"}
    assert bytes(kept["text.made_of"].tolist()).hex() == pair.text.fingerprint()
    save_file(kept, tmp_path / "weights.safetensors")
    again = Pair(folder, frozen=True)
    before = {name: value.clone() for name, value in again.text.named_parameters()}
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    torch.testing.assert_close(again.own.weight, pair.own.weight)
    for name, value in again.text.named_parameters():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_another_tower_is_refused(tmp_path: Path) -> None:
    kept = Pair(encoder(tmp_path / "a", 1), frozen=True).state_dict()
    with pytest.raises(RuntimeError, match="another frozen text tower"):
        Pair(encoder(tmp_path / "b", 2), frozen=True).load_state_dict(kept)


def test_a_tower_that_learns_is_kept_and_whole_weights_still_load(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "a", 1)
    whole = Pair(folder, frozen=False)
    kept = whole.state_dict()
    assert len([name for name in kept if name.startswith("text.")]) > 10
    frozen = Pair(folder, frozen=True)
    frozen.load_state_dict(kept)
    torch.testing.assert_close(frozen.own.weight, whole.own.weight)
