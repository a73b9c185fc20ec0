"""Frozen text vectors of named concepts, encoded once and kept with the weights; never encoded again at load."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from medvl.errors import ConfigError
from medvl.models.towers.base import TextTower


class ConceptBank(nn.Module):
    """N concepts, each said by one prompt or by several.

    `prompts` (P, H) float32 are the vectors as the tower gave them, `owner` (P,) int64 says whose each is, and `names_json`
    (bytes,) uint8 holds the names. All are buffers: saved, loaded and moved with the module, float32 whatever it is cast to.
    A bank built empty takes what a state dict holds; a bank with names refuses a state dict with others.

    Args:
        names: of the N concepts; each once.
        prompts: (P, H) vectors.
        owner: (P,) number of the concept each prompt belongs to; every concept has at least one.

    Raises:
        ConfigError: names that repeat, sizes that do not fit, a concept without prompt, a vector that is not finite.
    """

    prompts: Tensor
    owner: Tensor
    names_json: Tensor

    def __init__(
        self, names: Sequence[str] = (), prompts: Tensor | None = None, owner: Sequence[int] | Tensor | None = None
    ) -> None:
        super().__init__()
        prompts = torch.zeros(0, 0) if prompts is None else prompts.detach().to(torch.float32).clone()
        marks = torch.as_tensor(range(len(names)) if owner is None else owner, dtype=torch.int64)
        _check(names, prompts, marks)
        self.register_buffer("prompts", prompts)
        self.register_buffer("owner", marks.to(prompts.device))
        self.register_buffer("names_json", _pack(names))

    @classmethod
    def from_tower(cls, tower: TextTower, prompts: Mapping[str, Sequence[str]]) -> Self:
        """Concept to its prompts, encoded by `tower` as it is now, without dropout, in batches of 64.

        Raises:
            ConfigError: a concept without prompt.
        """
        texts = [text for group in prompts.values() for text in group]
        owner = [number for number, group in enumerate(prompts.values()) for _ in group]
        if not texts:
            raise ConfigError("a concept bank needs at least one concept with one prompt; none was given")
        return cls(list(prompts), tower.embed(texts, batch=64), owner)

    @classmethod
    def from_vectors(cls, vectors: Mapping[str, Tensor]) -> Self:
        """Concept to its vector (H,) or the vectors (K, H) of its prompts.

        Raises:
            ConfigError: widths differ, or there are none.
        """
        groups = [value.reshape(-1, value.shape[-1]) for value in vectors.values()]
        if not groups or len({group.shape[1] for group in groups}) != 1:
            raise ConfigError(f"a concept bank needs vectors of one width, got {sorted({g.shape[1] for g in groups})}")
        owner = [number for number, group in enumerate(groups) for _ in group]
        return cls(list(vectors), torch.cat(groups), owner)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the concepts, in the order of the rows."""
        return tuple(json.loads(bytes(self.names_json.tolist())))

    @property
    def width(self) -> int:
        """H."""
        return self.prompts.shape[1]

    def __len__(self) -> int:
        return len(self.names)

    def forward(self) -> Tensor:
        """(N, H) float32, each the mean of its concept's prompts, not normalised."""
        size = len(self)
        total = self.prompts.new_zeros(size, self.width).index_add_(0, self.owner, self.prompts)
        return total / torch.bincount(self.owner, minlength=size).clamp_min(1)[:, None]

    def rows(self, names: Iterable[str]) -> Tensor:
        """(n,) int64 numbers of the concepts called `names`.

        Raises:
            ConfigError: a concept the bank does not hold.
        """
        known = {name: number for number, name in enumerate(self.names)}
        wanted = list(names)
        missing = [name for name in wanted if name not in known]
        if missing:
            raise ConfigError(f"concept {missing[0]} is not in the bank of {len(known)}; encode the bank again with it")
        return torch.tensor([known[name] for name in wanted], dtype=torch.int64, device=self.owner.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the module but stay float32."""
        kept = self.prompts
        super()._apply(fn, recurse)
        if self.prompts.dtype != torch.float32:
            self.prompts = kept.to(self.prompts.device)
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, missing: list[str], *others: list[str]
    ) -> None:
        """Take the size of what is loaded, unless the names differ from those this bank was built with."""
        found = {name: state_dict[prefix + name] for name in ("prompts", "owner", "names_json") if prefix + name in state_dict}
        if "names_json" in found and len(self) and not torch.equal(found["names_json"].cpu(), self.names_json.cpu()):
            others[-1].append(
                f"{prefix}names_json: the weights hold {_unpack(found['names_json'])[:3]}..., not {self.names[:3]}..."
            )
            return
        for name, value in found.items():
            now = getattr(self, name)
            setattr(self, name, torch.empty(value.shape, dtype=now.dtype, device=now.device))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, *others)


def _pack(names: Sequence[str]) -> Tensor:
    return torch.tensor(list(json.dumps(list(names)).encode()), dtype=torch.uint8)


def _unpack(packed: Tensor) -> list[str]:
    return list(json.loads(bytes(packed.tolist())))


def _check(names: Sequence[str], prompts: Tensor, owner: Tensor) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ConfigError(f"concept {twice} appears twice in a bank; give each a name of its own")
    if prompts.dim() != 2 or owner.shape != (len(prompts),):
        raise ConfigError(
            f"a concept bank needs (P, H) vectors with P owners, got {tuple(prompts.shape)} and {tuple(owner.shape)}"
        )
    bare = sorted(set(range(len(names))) - set(owner.tolist()))
    if bare:
        raise ConfigError(f"concept {names[bare[0]]} has no prompt; give it one or leave it out")
    if len(owner) and (int(owner.min()) < 0 or int(owner.max()) >= len(names)):
        raise ConfigError(f"a prompt belongs to concept {int(owner.max())} of a bank of {len(names)}")
    if not bool(torch.isfinite(prompts).all()):
        raise ConfigError("a concept's vector is not finite; encode it in float32 or bfloat16, not float16")
