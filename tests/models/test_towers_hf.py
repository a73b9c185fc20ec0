"""Encoders of the transformers library, tiny and with random weights, saved to a folder and read back."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BertTokenizer,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from medvl.errors import ConfigError
from medvl.models.towers import TextTower, build_tower
from medvl.models.towers.casing import casing_report, warn_unknown

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "left", "kidney", "mass", "cyst", "in", "the", ".", "mild"]
TEXTS = ["No mass in the left kidney.", "Mild Cyst.", "LEFT cyst"]


def config(**changes: Any) -> BertConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **{**sizes, **changes})


def vocabulary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with an uncased tokenizer; nothing in the path says so."""
    place = tmp_path_factory.mktemp("models") / "encoder"
    torch.manual_seed(1)
    BertModel(config()).save_pretrained(place)
    BertTokenizer(vocab=str(vocabulary(place)), do_lower_case=True).save_pretrained(place)
    return place


def tower(folder: Path, **options: Any) -> TextTower:
    return build_tower("hf", options={"path": str(folder), **options})


@pytest.mark.parametrize("pooling", ["mean", "cls", "highest_id"])
def test_pooling_by_hand_without_padding(folder: Path, pooling: str) -> None:
    made = tower(folder, pooling=pooling)
    together = made(**made.tokenize(TEXTS, length=20)).pooled
    plain = BertModel.from_pretrained(folder).eval()
    for row, text in enumerate(TEXTS):
        words = text.lower().replace(".", " .").split()
        ids = [2, *(WORDS.index(word) for word in words), 3]
        states = plain(input_ids=torch.tensor([ids])).last_hidden_state[0]
        place = {"cls": 0, "highest_id": ids.index(max(ids))}.get(pooling)
        expected = states.mean(0) if place is None else states[place]
        torch.testing.assert_close(together[row], expected, atol=1e-5, rtol=1e-5)


def test_casing_is_the_tokenizers_own(folder: Path, tmp_path: Path) -> None:
    """The release looks for "uncased" in the path; a folder without it then turns capitalised words into [UNK]."""
    right = casing_report(tower(folder), TEXTS)
    assert right.unknown == 0 and right.lowers and not right.only_capitals
    BertModel(config()).save_pretrained(tmp_path)
    BertTokenizer(vocab=str(vocabulary(tmp_path)), do_lower_case=False).save_pretrained(tmp_path)
    wrong = tower(tmp_path)
    report = casing_report(wrong, TEXTS)
    assert report.only_capitals == ("Cyst", "LEFT", "Mild", "No") and report.unknown == pytest.approx(0.4)
    assert not report.lowers
    with pytest.warns(UserWarning, match="4 of 10 words .* such as Cyst; set lower_case: true"):
        warn_unknown(wrong, TEXTS)
    mended = tower(tmp_path, lower_case=True)
    assert torch.equal(mended.tokenize(TEXTS)["ids"], tower(folder).tokenize(TEXTS)["ids"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_unknown(mended, TEXTS)
    with pytest.warns(UserWarning, match="33% of 3 words"):
        warn_unknown(mended, ["left nephroblastoma kidney"])


def test_half_precision_is_close(folder: Path) -> None:
    full, half = tower(folder), tower(folder, dtype="bfloat16")
    found = full.tokenize(TEXTS)
    a, b = full(**found), half(**found)
    assert b.tokens.dtype == torch.bfloat16 and b.pooled.dtype == torch.float32
    assert torch.cosine_similarity(a.pooled, b.pooled).min() > 0.999
    assert full.fingerprint() != half.fingerprint()


def test_saved_half_loads_full(tmp_path: Path) -> None:
    BertModel(config()).half().save_pretrained(tmp_path)
    BertTokenizer(vocab=str(vocabulary(tmp_path))).save_pretrained(tmp_path)
    assert {p.dtype for p in tower(tmp_path).parameters()} == {torch.float32}


def test_language_model_head_and_pooler_are_left_out(tmp_path: Path) -> None:
    """A masked-LM checkpoint has no pooler; a random one would change the fingerprint from load to load."""
    BertForMaskedLM(config()).save_pretrained(tmp_path)
    BertTokenizer(vocab=str(vocabulary(tmp_path))).save_pretrained(tmp_path)
    first, second = tower(tmp_path), tower(tmp_path)
    assert first.fingerprint() == second.fingerprint()
    assert not any("pooler" in name or "cls." in name for name, _ in first.named_parameters())


def test_the_same_files_elsewhere_are_the_same_tower(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "uncased-copy"
    moved.mkdir()
    for file in folder.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert tower(folder).fingerprint() == tower(moved).fingerprint()


def test_missing_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    BertModel(config(num_hidden_layers=1)).save_pretrained(tmp_path)
    BertTokenizer(vocab=str(vocabulary(tmp_path))).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ConfigError, match=r"lacks 16 weights of its own model, first encoder\.layer\.1"):
        tower(tmp_path)


def test_no_pickle_no_foreign_code_no_network(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(BertModel(config()).state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"the weights of .* cannot be loaded"):
        tower(tmp_path)
    strange = json.loads((tmp_path / "config.json").read_text())
    strange |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine", "AutoModel": "code.Mine"}}
    (tmp_path / "config.json").write_text(json.dumps(strange))
    with pytest.raises(ConfigError, match=r"the configuration of .* cannot be loaded"):
        tower(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no folder .*nowhere"):
        tower(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="set local_files_only: false"):
        build_tower("hf", options={"path": "no-such-owner/no-such-model"})


def test_length_limits(folder: Path) -> None:
    assert tower(folder).max_length == 32
    long = tower(folder, max_length=7)
    ids = long.tokenize(["left kidney " * 30])["ids"]
    assert ids.shape == (1, 7) and int(ids[0, -1]) == WORDS.index("[SEP]")
    with pytest.raises(ConfigError, match="reads 32 tokens, max_length asks for 33"):
        tower(folder, max_length=33)


def words_only(folder: Path) -> None:
    """A tokenizer of one word, with the special tokens where RoBERTa has them."""
    base = Tokenizer(models.WordLevel({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "mass": 4}, unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.Whitespace()
    base.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


def test_roberta_positions_start_after_padding(tmp_path: Path) -> None:
    """RoBERTa numbers positions from pad + 1, so 20 positions read 18 tokens; one more would be out of range."""
    words_only(tmp_path)
    shape = RobertaConfig(
        vocab_size=5, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, max_position_embeddings=20
    )
    RobertaModel(shape).save_pretrained(tmp_path)
    made = tower(tmp_path)
    found = made.tokenize(["mass " * 40, "mass"])
    assert found["ids"].shape == (2, 18) and int(found["ids"][1, -1]) == made.pad_id == 1
    torch.testing.assert_close(made(**found).pooled[1:], made(**made.tokenize(["mass"])).pooled)


SMALL: dict[str, Any] = {"vocab_size": 5, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 1}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta": ("RobertaModel", {**SMALL, "hidden_size": 16, "intermediate_size": 8, "max_position_embeddings": 40}),
    "modernbert": (
        "ModernBertModel",
        {
            **SMALL,
            "hidden_size": 16,
            "intermediate_size": 8,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "cls_token_id": 0,
            "sep_token_id": 2,
        },
    ),
    "deberta-v2": ("DebertaV2Model", {**SMALL, "hidden_size": 16, "intermediate_size": 8, "relative_attention": True}),
    "t5": ("T5ForConditionalGeneration", {"vocab_size": 5, "d_model": 16, "d_kv": 8, "d_ff": 8, "num_layers": 2, "num_heads": 2}),
    "electra": ("ElectraModel", {**SMALL, "hidden_size": 16, "embedding_size": 8, "intermediate_size": 8}),
}


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_other_encoders_load_and_do_not_see_padding(tmp_path: Path, kind: str) -> None:
    words_only(tmp_path)
    model, shape = ENCODERS[kind]
    torch.manual_seed(4)
    made = getattr(transformers, model)(transformers.AutoConfig.for_model(kind, **shape))
    with torch.no_grad():
        for values in made.parameters():
            values.normal_(0, 0.3)
    made.save_pretrained(tmp_path)
    found = tower(tmp_path)
    together = found(**found.tokenize(["mass what", "mass mass mass mass what mass"], length=30)).pooled
    assert together.shape == (2, found.width) == (2, 16)
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    torch.testing.assert_close(together[:1], found(**found.tokenize(["mass what"])).pooled, atol=1e-4, rtol=1e-3)
