"""Cardiac-CLIP's image tower: `Sliver-g/Cardiac-CLIP`, a CLIP-style ViT-B/8 in three dimensions."""

from __future__ import annotations

from typing import Any

from medvl.models.encoders.base import Grid
from medvl.models.weights import KeyMap

NAME = "vit"
OPTIONS: dict[str, Any] = {
    "patch": 8,
    "width": 768,
    "depth": 12,
    "heads": 12,
    "class_token": True,
    "pool": "class",
    "norm_pre": True,
    "quick_gelu": True,
    "patch_bias": False,
}
IN_CHANNELS = 1
GRID_DHW: Grid = (128, 144, 144)
EMBED_DIM = 768

_WHOLE = r"(?:module\.)?"
_TOWER = _WHOLE + r"(?:vision_encoder\.)?visual\."
_BLOCK = _TOWER + r"transformer\.resblocks\.(\d+)\."
_HEAD = _WHOLE + r"multi_modal_vision_proj\.(weight|bias)"
_OTHERS = (
    _WHOLE + r"vision_encoder\.(?:positional_embedding|token_embedding\.weight|ln_final\..+|logit_scale|text_projection)",
    _WHOLE + r"(?:language_encoder|mim_head|cls_head)\..+",
    _WHOLE + r"multi_modal_language_proj\.(?:weight|bias)",
    _WHOLE + r"logit_scale",
)

IMAGE = KeyMap(
    (
        (_TOWER + r"conv1\.weight", "patch_weight"),
        (_TOWER + "class_embedding", "class_token"),
        (_TOWER + "positional_embedding", "position"),
        (_TOWER + r"ln_pre\.(.+)", r"norm_pre.\1"),
        (_TOWER + r"ln_post\.(.+)", r"norm.\1"),
        (_BLOCK + r"ln_([12])\.(.+)", r"blocks.\1.norm\2.\3"),
        (_BLOCK + r"attn\.in_proj_(weight|bias)", r"blocks.\1.qkv.\2"),
        (_BLOCK + r"attn\.out_proj\.(.+)", r"blocks.\1.out.\2"),
        (_BLOCK + r"mlp\.c_fc\.(.+)", r"blocks.\1.up.\2"),
        (_BLOCK + r"mlp\.c_proj\.(.+)", r"blocks.\1.down.\2"),
    ),
    (_HEAD, *_OTHERS),
)
PROJECTION = KeyMap(((_HEAD, r"\1"),), (_TOWER + ".+", *_OTHERS))
