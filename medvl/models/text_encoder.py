"""The text tower: a small BERT built from a config, with a WordPiece tokenizer trained on the corpus it will read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from medvl.models.config import TextTowerConfig

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A lower-casing WordPiece tokenizer; digits stay whole numbers as far as the vocabulary goes, units are split off."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - a vocabulary entry, not a secret
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIALS), min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return tokenizer


def prepare(tokenizer: Tokenizer, max_length: int) -> Tokenizer:
    """The same tokenizer, cutting at `max_length` and padding to the longest of a batch."""
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")  # noqa: S106 - a vocabulary entry, not a secret
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids (B, L) int64 and mask (B, L) int64 of `texts`, padded to the longest."""
    batch = tokenizer.encode_batch(list(texts))
    return torch.tensor([e.ids for e in batch]), torch.tensor([e.attention_mask for e in batch])


class TextEncoder(nn.Module):
    """BERT (Devlin et al. 2019) from a config, never from a hub; pooled by mean over real tokens or by [CLS]."""

    def __init__(self, config: TextTowerConfig, vocab_size: int) -> None:
        super().__init__()
        self.pooling = config.pooling
        self.bert = BertModel(
            BertConfig(
                vocab_size=vocab_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.intermediate_size,
                max_position_embeddings=config.max_length,
                hidden_dropout_prob=0.05,
                attention_probs_dropout_prob=0.05,
            ),
            add_pooling_layer=False,
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, hidden) pooled states of token ids (B, L) under mask (B, L)."""
        states: Tensor = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            return states[:, 0]
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp_min(1.0)
