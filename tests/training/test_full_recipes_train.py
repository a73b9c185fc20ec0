"""The three recipes at the papers' sizes train, shrunken by `--set` alone, by default and as released."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from full_recipes import NAMES, recipe_of, released
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from medvl.models.encoders.resnet import PadShortcut
from medvl.recipe import load_recipe
from medvl.text.prompts import load_findings
from medvl.training.recipe_stage import Trained
from medvl.training.run import Workspace, new_system, open_workspace, run_stages
from medvl_pipelines.built_in import findings_file, recipe_file

WINDOWS = dict(zip(NAMES, ([[-200, 300]], [[-1000, 1000]], [[-150, 250], [-200, 1000]]), strict=True))
LENGTH = "model.text.options.max_length=64"


def save_bert(folder: Path) -> None:
    names = ("the", "left", "right", "kidney", "mass", "cyst", "no", "of", "is", "in", "heart", "coronary", "pleural", ".", ",")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *names]
    base = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    base.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    base.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(tokenizer_object=base, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **sizes)).save_pretrained(folder)


def save_llama(folder: Path) -> None:
    base = Tokenizer(models.BPE())
    base.pre_tokenizer, base.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    pieces = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<bos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    base.train_from_iterator(["A mass of 42 mm in the left kidney."], pieces)
    PreTrainedTokenizerFast(tokenizer_object=base, bos_token="<bos>").save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaModel(LlamaConfig(vocab_size=320, max_position_embeddings=64, **sizes)).save_pretrained(folder)


def shrunken(name: str, text: Path, size: int) -> list[str]:
    """Grids of `size`, few patients, two steps: every change a `--set` value."""
    regions = [
        {"name": region, "grid_dhw": [size] * 3, "spacing_mm": [216 / size] * 3, "windows_hu": WINDOWS[name]}
        for kind in recipe_of(name).kinds.values()
        for region in kind.regions
    ]
    changes: dict[str, Any] = {
        "cohort.n_train": 6,
        "cohort.n_validation": 2,
        "contract.regions": regions,
        "model.image.grid_dhw": [size] * 3,
        "model.text.options.path": str(text),
        "statements": 20,
        "workers": 1,
    }
    for stage in recipe_of(name).stages:
        changes |= {f"stages.{stage.name}.{key}": value for key, value in {"steps": 2, "batch": 6, "warmup": 1}.items()}
    own: Mapping[str, dict[str, Any]] = {
        "renalclip": {"model.image.options.widths": [4, 4, 8, 8], "model.embed_dim": 16, "stages.align.pieces": 2},
        "cardiac-clip": {
            "model.image.options.width": 24,
            "model.image.options.depth": 2,
            "model.image.options.heads": 2,
            "model.reconstruct.decoder_width": 24,
            "model.reconstruct.decoder_heads": 2,
            "model.embed_dim": 16,
        },
        "medslip": {"model.image.options.widths": [4, 4, 4, 4], "model.streams.hidden": 16, "model.streams.feedforward": 16},
    }
    changes |= own[name]
    return [LENGTH, *(f"{key}={json.dumps(value)}" for key, value in changes.items())]


class Run:
    """A finished run: its workspace, what it trained, and the losses of its stages."""

    def __init__(self, name: str, overrides: list[str], folder: Path, cache: Path) -> None:
        self.losses: dict[str, list[float]] = {}
        recipe = load_recipe(recipe_file(name), overrides)
        findings = load_findings(findings_file("phantom"))
        self.work: Workspace = open_workspace(recipe, folder, cache, self._progress, findings)
        self.trained: Trained = run_stages(self.work)

    def _progress(self, name: str, done: int, total: int, told: Mapping[str, float]) -> None:
        if "loss" in told:
            self.losses.setdefault(name, []).append(told["loss"])


@pytest.fixture(scope="module", params=NAMES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Run, Run]:
    """A recipe's name, its default run and its run as released."""
    name, place = str(request.param), tmp_path_factory.mktemp(request.param)
    torch.manual_seed(3)
    (save_llama if name == "renalclip" else save_bert)(place / "text")
    small = shrunken(name, place / "text", 16 if name == "cardiac-clip" else 32)
    return name, Run(name, small, place / "default", place), Run(name, [*small, *released(name)], place / "released", place)


@pytest.mark.slow
def test_both_forms_train(both: tuple[str, Run, Run]) -> None:
    name, *runs = both
    for run in runs:
        assert list(run.losses) == [stage.name for stage in run.work.recipe.stages]
        assert all(math.isfinite(loss) for losses in run.losses.values() for loss in losses)
        moved = {part: changed(run, part) for part in ("image", "text")}
        assert moved == {"image": True, "text": name == "cardiac-clip"}
    assert runs[0].losses != runs[1].losses


def changed(run: Run, part: str) -> bool:
    """Whether any weight of a part differs from what it was before the first stage."""
    before = new_system(run.work.recipe, run.work.tokenizer, run.work.concepts).part(part).state_dict()
    after = run.trained.system.part(part).state_dict()
    return any(not torch.equal(before[key], after[key]) for key in before)


@pytest.mark.slow
def test_the_release_is_what_was_built(both: tuple[str, Run, Run]) -> None:
    name, default, release = both
    if name == "renalclip":
        shortcuts = [[m.detach for m in run.trained.system.modules() if isinstance(m, PadShortcut)] for run in (default, release)]
        assert shortcuts == [[False] * 3, [True] * 3]
    elif name == "cardiac-clip":
        assert [run.trained.system.clip.text.options.pooling for run in (default, release)] == ["cls", "highest_id"]
        places = [run.trained.system.reconstruct.places for run in (default, release)]  # type: ignore[union-attr]
        assert not torch.equal(*places)
    else:
        gates = [run.trained.system.streams.config.gate for run in (default, release)]  # type: ignore[union-attr]
        assert gates == ["sigmoid", "linear"]
