"""A small BERT built from a config, from scratch, with a tokenizer trained on the corpus it will read. No network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from tokenizers import Tokenizer
from torch import Tensor
from transformers import BertConfig, BertModel

from medvl.errors import ConfigError
from medvl.models.config import TextTowerConfig
from medvl.models.towers.base import TextTower, TowerOptions, tokenizer_text


class SmallBertOptions(TowerOptions):
    """Shape of the small BERT; the same numbers as `TextTowerConfig`, whose vocabulary size the tokenizer decides."""

    hidden_size: int = TextTowerConfig().hidden_size
    layers: int = TextTowerConfig().layers
    heads: int = TextTowerConfig().heads
    intermediate_size: int = TextTowerConfig().intermediate_size
    max_length: int = TextTowerConfig().max_length
    dropout: float = TextTowerConfig().dropout


class SmallBertTower(TextTower):
    """A BERT (Devlin et al. 2019) with random weights until trained or loaded.

    Args:
        options: shape.
        tokenizer: trained on the corpus; copied, so that cutting and padding set on it elsewhere change nothing here.
    """

    options_type = SmallBertOptions
    name: ClassVar[str] = "bert"
    remade: ClassVar[bool] = False

    def __init__(self, options: SmallBertOptions, tokenizer: Tokenizer) -> None:
        super().__init__(options, max_length=options.max_length, width=options.hidden_size)
        self.tokenizer = Tokenizer.from_str(tokenizer_text(tokenizer))
        config = BertConfig(
            vocab_size=self.tokenizer.get_vocab_size(),
            hidden_size=options.hidden_size,
            num_hidden_layers=options.layers,
            num_attention_heads=options.heads,
            intermediate_size=options.intermediate_size,
            max_position_embeddings=options.max_length,
            hidden_dropout_prob=options.dropout,
            attention_probs_dropout_prob=options.dropout,
        )
        self.bert = BertModel(config, add_pooling_layer=False)

    @classmethod
    def build(cls, options: SmallBertOptions, tokenizer: Tokenizer | None) -> Self:
        """The tower for `build_tower`.

        Raises:
            ConfigError: no tokenizer.
        """
        if tokenizer is None:
            raise ConfigError("text tower bert needs a tokenizer; train one on the corpus (models.tokenizer.train_tokenizer)")
        return cls(options, tokenizer)

    @property
    def unknown_id(self) -> int | None:
        """Token id of [UNK]."""
        found: int | None = self.tokenizer.token_to_id("[UNK]")
        return found

    def rows(self, texts: Sequence[str], limit: int) -> list[tuple[list[int], list[int]]]:
        """Ids between [CLS] and [SEP]; both count."""
        self.tokenizer.enable_truncation(limit)
        return [(e.ids, e.attention_mask) for e in self.tokenizer.encode_batch(list(texts))]

    def states(self, ids: Tensor, attend: Tensor) -> Tensor:
        """(B, M, H) float32."""
        found: Tensor = self.bert(input_ids=ids, attention_mask=attend).last_hidden_state
        return found

    def description(self) -> Mapping[str, Any]:
        """Shape, options and tokenizer; not whether it is frozen, which changes no number."""
        return {"options": self.options.model_dump(exclude={"frozen"}), "tokenizer": tokenizer_text(self.tokenizer)}
