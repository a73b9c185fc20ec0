"""Objectives by name. A new one is a file with a subclass of `Objective` and a line in `OBJECTIVES`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from medvl.data.targets import KindTargets, Targets
from medvl.errors import ConfigError, did_you_mean


class Options(BaseModel):
    """What every objective may be told; each adds its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    weight: float = 1.0


@dataclass(frozen=True)
class Sizes:
    """Widths an objective may need for layers of its own.

    Args:
        pooled: of pooled image features; embed: of the shared space; token: of image tokens.
        text: of the text tower's own pooled states.
        kinds: what each kind of region may show.
    """

    pooled: int
    embed: int
    token: int
    text: int
    kinds: Mapping[str, KindTargets]


@dataclass(frozen=True, eq=False)
class Scene:
    """What is known of the samples of one kind in a batch of B.

    Args:
        kind: its name; index: its number.
        targets: report-derived attributes, B rows.
        relations: (B, A, F) int8 of anatomies and findings, 1 present, 0 absent, -1 unmentioned; None when not asked for.
        duplicates: (B,) int64, equal where two samples have the same text.
        statements: attributes of S statements, when the batch has some.
        marks: (B, d, h, w) uint8 bits of where findings lie, when there are any.
        generator: for objectives that sample; seeded by the step.
        concepts: frozen banks by name (anatomies (A, C), findings (F, C)).
        time_days: (B,) float32 follow-up, NaN where unknown; event: (B,) bool. None when no outcome of the kind is known.
        patients: (B,) int64, equal where two samples are of the same patient.
    """

    kind: str
    index: int
    targets: Targets
    relations: Tensor | None = None
    duplicates: Tensor | None = None
    statements: Targets | None = None
    marks: Tensor | None = None
    generator: torch.Generator | None = None
    concepts: Mapping[str, Tensor] | None = None
    time_days: Tensor | None = None
    event: Tensor | None = None
    patients: Tensor | None = None


class Objective(nn.Module, ABC):
    """A loss over the representations of samples of one kind.

    Args:
        options: validated by `options_type`.
        sizes: widths.
    """

    options_type: ClassVar[type[Options]] = Options
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: Options, sizes: Sizes) -> None:
        super().__init__()
        self.options = options
        self.sizes = sizes

    @abstractmethod
    def forward(self, found: Mapping[str, Tensor], scene: Scene) -> Tensor:
        """() loss from the representations named in `needs`, each with the B samples of the scene first."""


OBJECTIVES: dict[str, type[Objective]] = {}


def check_objective(name: str, options: Mapping[str, Any]) -> tuple[type[Objective], Options]:
    """The class and validated options of the objective called `name`, or of its `type` when that is given.

    Raises:
        ConfigError: no such objective, or options it does not know.
    """
    kind = str(options.get("type", name))
    if kind not in OBJECTIVES:
        raise ConfigError(f"unknown objective {kind}; {did_you_mean(kind, OBJECTIVES)}")
    found = OBJECTIVES[kind]
    try:
        return found, found.options_type.model_validate({k: v for k, v in options.items() if k != "type"})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        raise ConfigError(
            f"objective {name}: {place}: {first['msg']} (known: {sorted(found.options_type.model_fields)})"
        ) from error


def build_objective(name: str, options: Mapping[str, Any], sizes: Sizes) -> Objective:
    """The objective that `check_objective` finds, with layers of `sizes`."""
    kind, checked = check_objective(name, options)
    return kind(checked, sizes)
