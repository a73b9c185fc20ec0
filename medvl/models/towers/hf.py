"""Any encoder of the transformers library as a text tower: BERT, RoBERTa, ModernBERT, DeBERTa, the encoder of a T5 and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from medvl.errors import ConfigError
from medvl.models.towers.base import COUNTED, TextTower
from medvl.models.towers.hub import HubOptions, describe, load_config, load_model, load_tokenizer, text_length


class HfOptions(HubOptions):
    """Which encoder and how it is read; see `HubOptions`."""


class HfTower(TextTower):
    """A pretrained encoder with its own tokenizer.

    Args:
        options: where it comes from.

    Raises:
        ConfigError: it cannot be loaded, or is no encoder of texts.
    """

    options_type = HfOptions
    name: ClassVar[str] = "hf"
    options: HfOptions

    def __init__(self, options: HfOptions) -> None:
        config = load_config(options)
        width = getattr(config, "hidden_size", None)
        if not isinstance(width, int):
            raise ConfigError(f"text tower hf: {options.path} is a {config.model_type}, not one text encoder with a hidden_size")
        tokenizer = load_tokenizer(options)
        super().__init__(options, max_length=text_length(options, config, tokenizer), width=width)
        self.tokenizer = tokenizer
        self.model = load_model(options, config)

    @property
    def pad_id(self) -> int:
        """Token id that fills rows up."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def unknown_id(self) -> int | None:
        """Token id of pieces the vocabulary lacks."""
        found: int | None = self.tokenizer.unk_token_id
        return found

    def rows(self, texts: Sequence[str], limit: int) -> list[tuple[list[int], list[int]]]:
        """Ids with the tokenizer's own special tokens, which count."""
        if not texts:
            return []
        wanted = [text.lower() for text in texts] if self.options.lower_case else list(texts)
        found = self.tokenizer(wanted, truncation=True, max_length=limit)["input_ids"]
        return [(ids, [COUNTED] * len(ids)) for ids in found]

    def states(self, ids: Tensor, attend: Tensor) -> Tensor:
        """(B, M, H) in the model's precision."""
        found: Tensor = self.model(input_ids=ids, attention_mask=attend).last_hidden_state
        return found

    def description(self) -> Mapping[str, Any]:
        """Shape, precision, tokenizer; not where the files lay."""
        return describe(self.options, self.model.config, self.tokenizer, self.max_length)
