"""Towers by name. A new one is a file with a subclass of `TextTower` and a line in `TOWERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from tokenizers import Tokenizer

from medvl.errors import ConfigError, did_you_mean
from medvl.models.towers.base import TextTower, TowerOptions
from medvl.models.towers.hf import HfOptions, HfTower
from medvl.models.towers.llm2vec import Llm2VecOptions, Llm2VecTower
from medvl.models.towers.small_bert import SmallBertOptions, SmallBertTower


def _with_own_tokenizer(tower: type[HfTower] | type[Llm2VecTower]) -> Callable[[Any, Tokenizer | None], TextTower]:
    """How to build a tower that brings a tokenizer and takes none."""

    def build(options: Any, tokenizer: Tokenizer | None) -> TextTower:
        if tokenizer is not None:
            raise ConfigError(f"text tower {tower.name}: {options.path} brings its own tokenizer; give none")
        return tower(options)

    return build


TOWERS: dict[str, tuple[type[TowerOptions], Callable[[Any, Tokenizer | None], TextTower]]] = {
    "bert": (SmallBertOptions, SmallBertTower.build),
    "hf": (HfOptions, _with_own_tokenizer(HfTower)),
    "llm2vec": (Llm2VecOptions, _with_own_tokenizer(Llm2VecTower)),
}


def build_tower(name: str, *, options: Mapping[str, Any], tokenizer: Tokenizer | None = None) -> TextTower:
    """The tower called `name` with `options`; `tokenizer` is for towers that bring none of their own.

    Raises:
        ConfigError: no such tower, options it does not know, or weights that cannot be loaded.
    """
    if name not in TOWERS:
        raise ConfigError(f"unknown text tower {name}; {did_you_mean(name, TOWERS)}")
    options_type, build = TOWERS[name]
    try:
        wanted = options_type.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        known = sorted(options_type.model_fields)
        raise ConfigError(f"text tower {name}: {place}: {first['msg']} (known: {known})") from error
    return build(wanted, tokenizer).settle()
