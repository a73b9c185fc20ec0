"""RenalCLIP's image tower: `dt-yuhui/RenalCLIP`, weights `taoyh/RenalCLIP` (Tao et al. 2025).

The release lets no gradient through the shortcuts where stages meet; to train on as it did add `detach_shortcut: true`.
"""

from __future__ import annotations

from typing import Any

from medvl.models.encoders.base import Grid
from medvl.models.weights import KeyMap

NAME = "resnet18"
OPTIONS: dict[str, Any] = {"shortcut": "A"}
IN_CHANNELS = 1
GRID_DHW: Grid = (32, 128, 128)
EMBED_DIM = 4096

_TOWER = r"(?:module\.)?(?:image_encoder_q_student|backbone\.image_encoder)\."
_BACKBONE = _TOWER + r"((?:conv1|bn1|layer[1-4])\..+)"
_HEAD = _TOWER + r"global_embedding\.head\.(weight|bias)"
_OTHERS = (r"(?:module\.)?logit_scale", r"(?:module\.)?text_encoder_q_student\..+")

IMAGE = KeyMap(((_BACKBONE, r"\1"),), (_HEAD, *_OTHERS))
PROJECTION = KeyMap(((_HEAD, r"\1"),), (_BACKBONE, *_OTHERS))
