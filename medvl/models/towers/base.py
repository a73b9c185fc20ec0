"""What every text tower is: texts to token ids, token ids to states and one vector, and a hash of all that decides them."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer
from torch import Tensor, nn

from medvl.errors import ConfigError
from medvl.models.towers.pooling import Pooling, pool

PADDING, COUNTED, READ = 0, 1, 2
_MADE_OF = "made_of"
SCHEME = "1"


class TowerOptions(BaseModel):
    """What every tower may be told; each adds its own.

    Args:
        pooling: how token states become one vector.
        frozen: no gradient, dropout off even while the rest trains.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    pooling: Pooling = "mean"
    frozen: bool = False


class TextEncoded(NamedTuple):
    """What a tower makes of B texts of at most M tokens.

    Args:
        pooled: (B, H) float32.
        tokens: (B, M, H) states, in the tower's own dtype.
        mask: (B, M) bool, tokens that count: no padding, no instruction.
    """

    pooled: Tensor
    tokens: Tensor
    mask: Tensor


class TextTower(nn.Module, ABC):
    """A text encoder with its tokenizer.

    Masks are int64: 0 padding, 1 a token that counts, 2 a token that is read but not pooled, such as an instruction.

    Args:
        options: validated by `options_type`.
        max_length: most tokens of a text; longer ones are cut.
        width: H of what it gives.
    """

    options_type: ClassVar[type[TowerOptions]] = TowerOptions
    name: ClassVar[str]
    remade: ClassVar[bool] = True

    def __init__(self, options: TowerOptions, *, max_length: int, width: int) -> None:
        super().__init__()
        self.options = options
        self.max_length = max_length
        self.width = width
        self._fingerprint: str | None = None

    @abstractmethod
    def rows(self, texts: Sequence[str], limit: int) -> list[tuple[list[int], list[int]]]:
        """Token ids and mask values of each text, at most `limit` tokens, closing tokens kept, not padded."""

    @abstractmethod
    def states(self, ids: Tensor, attend: Tensor) -> Tensor:
        """(B, M, H) states of the last layer for ids (B, M) where attend (B, M) int64 is 1."""

    @abstractmethod
    def description(self) -> Mapping[str, Any]:
        """Everything besides the weights that decides what comes out, as JSON: shapes, options, the tokenizer."""

    @property
    def pad_id(self) -> int:
        """Token id that fills rows up."""
        return 0

    @property
    def unknown_id(self) -> int | None:
        """Token id of pieces the vocabulary lacks; None when the tokenizer has no such token."""
        return None

    def tokenize(self, texts: Sequence[str], *, length: int | None = None) -> dict[str, Tensor]:
        """`ids` and `mask`, each (B, M) int64, M the longest row or `length`.

        Raises:
            ConfigError: `length` is longer than the tower can read.
        """
        if length is not None and length > self.max_length:
            raise ConfigError(f"a text tower that reads {self.max_length} tokens cannot pad to {length}; ask for less")
        rows = self.rows(texts, length or self.max_length)
        size = length or max((len(ids) for ids, _ in rows), default=0) or 1
        ids = torch.full((len(rows), size), self.pad_id, dtype=torch.int64)
        mask = torch.full((len(rows), size), PADDING, dtype=torch.int64)
        for row, (tokens, marks) in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
            mask[row, : len(marks)] = torch.tensor(marks, dtype=torch.int64)
            if not tokens:
                mask[row, 0] = READ
        return {"ids": ids, "mask": mask}

    def forward(self, ids: Tensor, mask: Tensor) -> TextEncoded:
        """States and pooled vectors of token ids (B, M) under mask (B, M)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.options.frozen):
            states = self.states(ids, (mask != PADDING).long())
            counted = mask == COUNTED
            return TextEncoded(pool(states, ids, counted, self.options.pooling), states, counted)

    def embed(self, texts: Sequence[str], *, batch: int) -> Tensor:
        """(N, H) float32 on the CPU: pooled vectors of N texts, without dropout or gradient, `batch` at a time."""
        device, training = next(self.parameters()).device, self.training
        self.eval()
        found = [torch.zeros(0, self.width)]
        try:
            with torch.no_grad():
                for start in range(0, len(texts), batch):
                    tokens = self.tokenize(texts[start : start + batch])
                    found.append(self(tokens["ids"].to(device), tokens["mask"].to(device)).pooled.cpu())
        finally:
            self.train(training)
        return torch.cat(found)

    def settle(self) -> Self:
        """The same tower in evaluation mode, without gradients if it is frozen; called once when it is built.

        A frozen tower that is `remade` from its folder or hub name leaves its weights out of state dicts: a language model of
        8 billion would else be written with every checkpoint. Its fingerprint stands for them, and another one is refused.
        """
        if self.options.frozen:
            self.requires_grad_(False)
            if self.remade:
                self.register_state_dict_post_hook(_leave_out)
                self.register_load_state_dict_pre_hook(_put_back)
        return self.eval()

    def train(self, mode: bool = True) -> Self:
        """As for any module, but a frozen tower stays in evaluation mode."""
        return super().train(mode and not self.options.frozen)

    def fingerprint(self) -> str:
        """SHA-256 over configuration, tokenizer and weights; reads every weight, so ask once per run, not per batch."""
        if self._fingerprint is not None:
            return self._fingerprint
        digest = hashlib.sha256(json.dumps([SCHEME, self.name, self.description()], sort_keys=True).encode())
        for name, value in sorted(_tensors(self).items()):
            flat = value.detach().to("cpu").contiguous().reshape(-1)
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(flat.view(torch.uint8).numpy().data)
        if self.options.frozen and self.remade:
            self._fingerprint = digest.hexdigest()
        return digest.hexdigest()


def tokenizer_text(tokenizer: Tokenizer) -> str:
    """A tokenizer as JSON, without the cutting and padding that the last call left in it."""
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return str(plain.to_str())


def _tensors(tower: nn.Module) -> dict[str, Tensor]:
    return dict([*tower.named_parameters(), *tower.named_buffers()])


def _mark(tower: TextTower) -> Tensor:
    return torch.tensor(list(bytes.fromhex(tower.fingerprint())), dtype=torch.uint8)


def _leave_out(tower: TextTower, state_dict: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    for name in [key for key in state_dict if key.startswith(prefix)]:
        del state_dict[name]
    state_dict[prefix + _MADE_OF] = _mark(tower)


def _put_back(tower: TextTower, state_dict: dict[str, Tensor], prefix: str, *others: Any) -> None:
    """Before loading: the tower's own weights where a fingerprint stands for them."""
    mark = state_dict.pop(prefix + _MADE_OF, None)
    if mark is None:
        return
    if not torch.equal(mark.cpu(), _mark(tower)):
        others[-1].append(f"{prefix}: the weights were trained beside another frozen text tower than {tower.name} as built now")
    state_dict |= {prefix + name: value for name, value in tower.named_parameters()}
    state_dict |= {prefix + name: value for name, value in tower.named_buffers() if _persists(tower, name)}


def _persists(tower: nn.Module, name: str) -> bool:
    owner, _, own = name.rpartition(".")
    return own not in tower.get_submodule(owner)._non_persistent_buffers_set
