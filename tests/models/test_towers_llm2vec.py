"""Language models read in both directions: tiny ones with random weights, wrappers and adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

from medvl.errors import ConfigError
from medvl.models.towers import TextTower, build_tower
from medvl.models.towers.llm2vec import check_bidirectional

TEXTS = ["A mass of 42 mm in the left kidney, with a small cyst.", "No hydronephrosis.", "Right kidney normal."]
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 128,
}
FAMILIES = {
    "llama": (LlamaConfig, LlamaModel),
    "mistral": (MistralConfig, MistralModel),
    "qwen2": (Qwen2Config, Qwen2Model),
    "qwen3": (Qwen3Config, Qwen3Model),
}


def save_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Byte-level pieces as in Llama 3: <bos> in front, <eot> known as a token of its own."""
    base = Tokenizer(models.BPE())
    base.pre_tokenizer, base.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<bos>", "<eot>", "<user>"]
    base.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=290, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    base.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    made = PreTrainedTokenizerFast(tokenizer_object=base, bos_token="<bos>", additional_special_tokens=special[1:])
    made.save_pretrained(folder)
    return made


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "decoder"
    config, model = FAMILIES[request.param]
    torch.manual_seed(2)
    model(config(**SIZES)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama") / "decoder"
    torch.manual_seed(2)
    LlamaModel(LlamaConfig(**SIZES)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def tower(folder: Path, **options: Any) -> TextTower:
    return build_tower("llm2vec", options={"path": str(folder), **options})


def test_a_later_token_changes_an_earlier_state(family: Path) -> None:
    made = tower(family)
    ids = torch.tensor([[5, 60, 7, 80], [5, 60, 7, 81]])
    for padding in (0, 2):
        wide = torch.nn.functional.pad(ids, (0, padding))
        mask = (torch.arange(4 + padding) < 4).long().expand(2, -1)
        states = made(wide, mask).tokens
        assert (states[0, :3] - states[1, :3]).abs().amin(0).max() > 1e-3
    assert type(made.model).from_pretrained(family)(input_ids=ids).last_hidden_state.diff(dim=0)[0, :3].abs().max() == 0  # type: ignore[union-attr, operator, misc]


def test_padding_and_company_change_nothing(family: Path) -> None:
    made = tower(family)
    together = made(**made.tokenize(TEXTS, length=100))
    for row, text in enumerate(TEXTS):
        alone = made(**made.tokenize([text]))
        torch.testing.assert_close(together.pooled[row], alone.pooled[0], atol=1e-5, rtol=1e-4)
    assert not together.mask[:, -1].any()


def test_mean_by_hand_leaves_out_what_opens_the_wrapper(llama: Path) -> None:
    tokenizer = save_tokenizer(llama)
    made = tower(llama, prefix="<user>", instruction="Describe the kidney:", suffix="<eot>")
    whole = tokenizer(f"<user>Describe the kidney: {TEXTS[0]}<eot>")["input_ids"]
    own = tokenizer(TEXTS[0] + "<eot>", add_special_tokens=False)["input_ids"]
    found = made.tokenize([TEXTS[0] + "  "])
    assert found["ids"][0].tolist() == whole and whole[0] == 0 and whole[-1] == 1
    assert int((found["mask"] == 1).sum()) == pytest.approx(len(own), abs=1)
    first = len(whole) - int((found["mask"] == 1).sum())
    assert tokenizer.decode(whole[first:]).strip() == TEXTS[0] + "<eot>"
    out = made(**found)
    torch.testing.assert_close(out.pooled[0], out.tokens[0, first:].mean(0))
    assert out.mask[0].tolist() == [False] * first + [True] * (len(whole) - first)


def test_without_wrapper_only_the_opening_token_is_left_out(llama: Path) -> None:
    found = tower(llama).tokenize(["No mass"])
    assert int(found["ids"][0, 0]) == 0 and found["mask"][0].tolist() == [2] + [1] * (found["ids"].shape[1] - 1)


def test_a_cut_text_keeps_its_wrapper(llama: Path) -> None:
    made = tower(llama, instruction="Say:", suffix="<eot>", max_length=20)
    found = made.tokenize([TEXTS[0] * 9])
    assert found["ids"].shape[1] <= 20 and int(found["ids"][0, -1]) == 1 and int(found["mask"][0].eq(1).sum()) > 5
    with pytest.raises(ConfigError, match="no room for a text in 5 tokens"):
        made.tokenize(["x"], length=5)


def test_an_empty_text_is_zeros_not_nan(llama: Path) -> None:
    out = tower(llama)(**tower(llama).tokenize(["", "mass"]))
    assert torch.equal(out.pooled[0], torch.zeros(16)) and torch.isfinite(out.tokens).all()


def test_half_precision_is_close(llama: Path) -> None:
    full, half = tower(llama), tower(llama, dtype="bfloat16")
    found = full.tokenize(TEXTS)
    assert torch.cosine_similarity(full(**found).pooled, half(**found).pooled).min() > 0.999


def save_adapter(folder: Path, prefix: str, **changes: Any) -> dict[str, torch.Tensor]:
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "none", "target_modules": ["q_proj"], **changes}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    made = {
        f"layers.{n}.self_attn.q_proj.lora_{x}.weight": torch.randn(*s)
        for n in (0, 1)
        for x, s in (("A", (2, 16)), ("B", (16, 2)))
    }
    save_file({prefix + key: value for key, value in made.items()}, folder / "adapter_model.safetensors")
    return made


@pytest.mark.parametrize("prefix", ["base_model.model.", "base_model.model.model."])
@pytest.mark.parametrize(("stabilised", "scale"), [(False, 3.0), (True, 6 / 2**0.5)])
def test_adapters_are_added_in_order(llama: Path, tmp_path: Path, prefix: str, stabilised: bool, scale: float) -> None:
    first = save_adapter(tmp_path / "mntp", prefix, use_rslora=stabilised)
    second = save_adapter(tmp_path / "simcse", prefix, use_rslora=stabilised)
    plain = tower(llama)
    made = tower(llama, adapters=[str(tmp_path / "mntp"), str(tmp_path / "simcse")])
    expected = plain.state_dict()
    for layer in (0, 1):
        for part in (first, second):
            down, up = (part[f"layers.{layer}.self_attn.q_proj.lora_{x}.weight"] for x in "AB")
            expected[f"model.layers.{layer}.self_attn.q_proj.weight"] += scale * torch.einsum("ok,ki->oi", up, down)
    found = made.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)
    assert made.fingerprint() != tower(llama).fingerprint()


def test_adapters_that_do_not_fit(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        tower(llama, adapters=[str(tmp_path)])
    save_adapter(tmp_path / "dora", "base_model.model.", use_dora=True)
    with pytest.raises(ConfigError, match=r"only plain LoRA is merged here \(\['use_dora'\]\)"):
        tower(llama, adapters=[str(tmp_path / "dora")])
    save_adapter(tmp_path / "other", "base_model.model.decoder.")
    with pytest.raises(ConfigError, match=r"no linear layer decoder\.layers\.0\.self_attn\.q_proj"):
        tower(llama, adapters=[str(tmp_path / "other")])


def test_a_causal_checkpoint_gives_its_trunk(llama: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    assert not any("lm_head" in name for name, _ in tower(tmp_path).named_parameters())


def test_a_model_that_stays_causal_is_refused(llama: Path) -> None:
    made = tower(llama)
    check_bidirectional(made)  # type: ignore[arg-type]
    assert not any(getattr(layer, "is_causal", False) for layer in made.modules())
    made.model.config.is_causal = True  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="is not read in both directions under transformers"):
        check_bidirectional(made)  # type: ignore[arg-type]


def test_other_families_are_refused(llama: Path, tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"is a bert; known families: llama, mistral, qwen2, qwen3"):
        tower(tmp_path)
