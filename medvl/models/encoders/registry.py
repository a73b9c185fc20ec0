"""Image encoders by name. A new one is a file with an `ImageEncoder`, its options and a line in `ENCODERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError

from medvl.errors import ConfigError, did_you_mean
from medvl.models.encoders.base import EncoderOptions, Grid, ImageEncoder
from medvl.models.encoders.others import (
    DenseNetEncoder,
    DenseNetOptions,
    SegResNetEncoder,
    SegResNetOptions,
    SwinEncoder,
    SwinOptions,
)
from medvl.models.encoders.resnet import SHAPES, ResNetEncoder, ResNetOptions
from medvl.models.encoders.small_maps import guard_small_maps
from medvl.models.encoders.vit import VisionTransformer, VitOptions


@dataclass(frozen=True)
class EncoderKind:
    """How to build one kind of encoder.

    Args:
        options: what it may be told.
        build: (in_channels, grid_dhw, options) to encoder.
    """

    options: type[EncoderOptions]
    build: Callable[[int, Grid, Any], ImageEncoder]


ENCODERS: dict[str, EncoderKind] = {
    **{name: EncoderKind(ResNetOptions, partial(ResNetEncoder, name)) for name in SHAPES},
    "densenet121": EncoderKind(DenseNetOptions, DenseNetEncoder),
    "segresnet": EncoderKind(SegResNetOptions, SegResNetEncoder),
    "swin_unetr": EncoderKind(SwinOptions, SwinEncoder),
    "vit": EncoderKind(VitOptions, VisionTransformer),
}


def build_encoder(name: str, *, in_channels: int, grid_dhw: Grid, options: Mapping[str, Any]) -> ImageEncoder:
    """The encoder called `name` for pixels (B, in_channels, *grid_dhw).

    Raises:
        ConfigError: no such encoder, options it does not know, or a grid it cannot take.
    """
    if name not in ENCODERS:
        raise ConfigError(f"unknown encoder {name}; {did_you_mean(name, ENCODERS)}")
    kind = ENCODERS[name]
    known = kind.options.model_fields
    for option in options:
        if option not in known:
            raise ConfigError(f"encoder {name}: unknown option {option}; {did_you_mean(option, known)}")
    try:
        valid = kind.options.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "options"
        raise ConfigError(f"encoder {name}: {place}: {first['msg'].removeprefix('Value error, ')}") from error
    encoder = kind.build(in_channels, grid_dhw, valid)
    guard_small_maps(encoder)
    return encoder
