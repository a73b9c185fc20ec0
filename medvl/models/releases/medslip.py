"""MeDSLIP: `Shef-AIRE/MeDSLIP`, a 2D ResNet-50 up to its third stage, a gate and two concept decoders (Fan et al. 2024).

Its flat kernels become the middle slice of cubic ones, so that on a volume of one slice ours gives what theirs gives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from medvl.errors import ConfigError
from medvl.models.weights import KeyMap

NAME = "resnet50"
OPTIONS: dict[str, Any] = {"stage": 3}
STREAMS: dict[str, Any] = {"gate": "linear", "positions": False, "memory_norm": False, "initial": "normal"}
CONCEPT_DIM = 768

_WHOLE = r"(?:module\.)?"
_TRUNK = _WHOLE + r"res_features\."
_STREAMS = _WHOLE + (
    r"(?:mask_generator|pathology_embedding_layer|(?:res_l[12]|decoder|classifier|cl_fc)_(?:pathology|anatomy))\..+"
)


def image(in_channels: int) -> KeyMap:
    """The trunk for scans of `in_channels` windows: 3 take the place of red, green and blue, 1 of their sum.

    Raises:
        ConfigError: another number of channels.
    """
    if in_channels not in (1, 3):
        raise ConfigError(f"MeDSLIP's trunk saw red, green and blue; it fits 1 or 3 windows, not {in_channels}")

    def change(name: str, tensor: Tensor) -> Tensor:
        if name == "conv1.weight" and in_channels == 1:
            tensor = tensor.sum(1, keepdim=True)
        return _inflated(tensor) if tensor.ndim == 4 else tensor

    stages = tuple((_TRUNK + rf"{n + 3}\.(.+)", rf"layer{n}.\1") for n in (1, 2, 3))
    names = ((_TRUNK + r"0\.weight", "conv1.weight"), (_TRUNK + r"1\.(.+)", r"bn1.\1"), *stages)
    return KeyMap(names, (_STREAMS,), change)


def _inflated(kernel: Tensor) -> Tensor:
    """(O, I, k, k, k), zero but for the middle slice, which is the flat kernel (O, I, k, k)."""
    deep = torch.zeros(*kernel.shape[:2], kernel.shape[2], *kernel.shape[2:], dtype=kernel.dtype, device=kernel.device)
    deep[:, :, kernel.shape[2] // 2] = kernel
    return deep


def _stream(theirs: str, ours: str) -> tuple[tuple[str, str | tuple[str, ...]], ...]:
    """Rules of one stream."""
    layer, to = _WHOLE + rf"decoder_{theirs}\.layers\.(\d+)\.", rf"streams.{ours}.layers.\1"
    attentions = tuple(
        rule
        for attention, name in (("self_attn", "among"), ("multihead_attn", "across"))
        for rule in (
            (layer + attention + r"\.in_proj_(weight|bias)", tuple(rf"{to}.{name}.{p}.\2" for p in ("query", "key", "value"))),
            (layer + attention + r"\.out_proj\.(.+)", rf"{to}.{name}.out.\2"),
        )
    )
    norms = tuple((layer + rf"norm{n + 1}\.(.+)", rf"{to}.norms.{n}.\2") for n in range(3))
    return (
        *attentions,
        *norms,
        (layer + r"linear1\.(.+)", rf"{to}.feedforward.0.\2"),
        (layer + r"linear2\.(.+)", rf"{to}.feedforward.3.\2"),
        (_WHOLE + rf"decoder_{theirs}\.norm\.(.+)", rf"streams.{ours}.norm.\1"),
        (_WHOLE + rf"res_l1_{theirs}\.(.+)", rf"streams.{ours}.memory.0.\1"),
        (_WHOLE + rf"res_l2_{theirs}\.(.+)", rf"streams.{ours}.memory.2.\1"),
        (_WHOLE + rf"classifier_{theirs}\.(.+)", rf"streams.{ours}.existence.\1"),
        (_WHOLE + rf"cl_fc_{theirs}\.(.+)", rf"streams.{ours}.prototype.\1"),
    )


CONCEPTS = KeyMap(
    (
        (_WHOLE + r"mask_generator\.(.+)", r"gate.\1"),
        (_WHOLE + r"pathology_embedding_layer\.(.+)", r"queries.concept.\1"),
        *_stream("pathology", "finding"),
        *_stream("anatomy", "anatomy"),
    ),
    (_TRUNK + ".+",),
)
