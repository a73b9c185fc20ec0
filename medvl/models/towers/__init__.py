"""Text towers by name: a small BERT from scratch, any encoder of transformers, a language model made bidirectional."""

from medvl.models.towers.base import TextEncoded, TextTower
from medvl.models.towers.registry import TOWERS, build_tower

__all__ = ["TOWERS", "TextEncoded", "TextTower", "build_tower"]
