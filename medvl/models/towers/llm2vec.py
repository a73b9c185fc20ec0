"""A language model as a text tower: the causal mask taken off, the mean over the tokens of the text itself.

Source: BehnamGhader et al. 2024 (LLM2Vec); RenalCLIP uses it with Llama-3-8B. We differ in three things. The chat wrapper is an
option that is always applied (`prefix`, `suffix`); the original applies it only if a config entry equals one hub name, so a local
copy silently goes without. Rows are padded on the right; positions are relative, so only rounding differs. Tokens that count are
found by their place in the text and not by tokenizing the text twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import __version__ as transformers_version

from medvl.errors import ConfigError
from medvl.models.towers.base import COUNTED, READ, TextTower
from medvl.models.towers.hub import HubOptions, describe, load_config, load_model, load_tokenizer, text_length
from medvl.models.towers.lora import merge_lora

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


class Llm2VecOptions(HubOptions):
    """Which language model and how it is read; see also `HubOptions`.

    Args:
        instruction: said before each text, read but not pooled.
        prefix: opens the chat wrapper, read but not pooled; for Llama-3-Instruct
            `<|start_header_id|>user<|end_header_id|>` and two line ends.
        suffix: closes it, pooled as in the original; for Llama-3-Instruct `<|eot_id|>`.
        adapters: folders of LoRA adapters, merged into the weights in this order, such as MNTP and then SimCSE.
    """

    instruction: str = ""
    prefix: str = ""
    suffix: str = ""
    adapters: tuple[str, ...] = ()


class Llm2VecTower(TextTower):
    """A decoder read in both directions.

    Args:
        options: where it comes from and how texts are wrapped.

    Raises:
        ConfigError: it cannot be loaded, is of no known family, or still reads in one direction only.
    """

    options_type = Llm2VecOptions
    name: ClassVar[str] = "llm2vec"
    options: Llm2VecOptions

    def __init__(self, options: Llm2VecOptions) -> None:
        config = load_config(options)
        if config.model_type not in FAMILIES:
            raise ConfigError(
                f"text tower llm2vec: {options.path} is a {config.model_type}; known families: {', '.join(FAMILIES)}"
            )
        config.is_causal = False
        config.use_cache = False
        tokenizer = load_tokenizer(options)
        super().__init__(options, max_length=text_length(options, config, tokenizer), width=config.hidden_size)
        self.tokenizer = tokenizer
        self.model = load_model(options, config)
        make_bidirectional(self.model)
        for folder in options.adapters:
            merge_lora(self.model, folder)
        check_bidirectional(self)

    @property
    def unknown_id(self) -> int | None:
        """Token id of pieces the vocabulary lacks; byte-level vocabularies lack none."""
        found: int | None = self.tokenizer.unk_token_id
        return found

    def rows(self, texts: Sequence[str], limit: int) -> list[tuple[list[int], list[int]]]:
        """Ids of the wrapped texts; the text is cut so that the wrapper stays whole, and the wrapper's opening does not count.

        Raises:
            ConfigError: the wrapper alone is longer than `limit`.
        """
        before = self.options.prefix + (self.options.instruction.strip() + " " if self.options.instruction.strip() else "")
        room = limit - len(self.tokenizer(before + self.options.suffix)["input_ids"])
        if room < 1:
            raise ConfigError(f"text tower llm2vec: instruction and wrapper leave no room for a text in {limit} tokens")
        return [self._row(before, text.strip(), room, limit) for text in texts]

    def _row(self, before: str, text: str, room: int, limit: int) -> tuple[list[int], list[int]]:
        """Ids and marks of one text with at most `room` tokens of its own."""
        text = text.lower() if self.options.lower_case else text
        ends = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if len(ends) > room:
            text = text[: ends[room - 1][1]]
        found = self.tokenizer(before + text + self.options.suffix, return_offsets_mapping=True)
        marks = [COUNTED if end > len(before) else READ for _, end in found["offset_mapping"]]
        return found["input_ids"][:limit], marks[:limit]

    def states(self, ids: Tensor, attend: Tensor) -> Tensor:
        """(B, M, H) in the model's precision."""
        found: Tensor = self.model(input_ids=ids, attention_mask=attend).last_hidden_state
        return found

    def description(self) -> Mapping[str, Any]:
        """Shape, precision, wrapper, tokenizer; not where the files lay. Adapters are in the weights."""
        found = describe(self.options, self.model.config, self.tokenizer, self.max_length)
        found["options"] = {key: value for key, value in found["options"].items() if key != "adapters"}
        return found


def make_bidirectional(model: nn.Module) -> None:
    """Let every attention layer of a decoder see both directions.

    The tested transformers hands the config's `is_causal` down to the layers. Where that is not done, a batch without padding has
    no mask and each layer's own flag decides: a text would be read in one direction alone, and in both beside a longer one.
    """
    for layer in model.modules():
        if hasattr(layer, "is_causal"):
            setattr(layer, "is_causal", False)  # noqa: B010 - a plain attribute of transformers' layers


def check_bidirectional(tower: Llm2VecTower) -> None:
    """Stop if a later token does not change an earlier state, or if padding changes one; a few tokens through the model.

    Raises:
        ConfigError: the installed transformers treats the mask in another way.
    """
    size = len(tower.tokenizer)
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]]) % size
    with torch.no_grad():
        first = tower.states(ids, torch.ones_like(ids))[:, 0].float()
        padded = torch.cat([ids, torch.zeros_like(ids[:, :1])], 1)
        again = tower.states(padded, (torch.arange(5) < 4).long().expand(2, 5))[:, 0].float()
    moved, rounding = (first[0] - first[1]).abs().max(), (first - again).abs().max()
    tolerance = 0.1 if tower.options.dtype == "bfloat16" else 1e-3
    if not moved > 0 or rounding > tolerance * first.abs().max():
        raise ConfigError(
            f"text tower llm2vec: {tower.options.path} is not read in both directions under transformers {transformers_version} "
            f"(a later token moves the first state by {moved:.2e}, padding by {rounding:.2e}); install the tested version"
        )
