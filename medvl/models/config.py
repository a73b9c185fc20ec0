"""Model shapes as data. These travel in a bundle as `model.json`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageTowerConfig(_Strict):
    """The image tower; `kinds` names what a region may be, each with its own queries and projection."""

    in_channels: int = 2
    widths: tuple[int, int, int, int] = (32, 64, 128, 192)
    blocks: tuple[int, int, int, int] = (1, 1, 1, 1)
    stem_kernel: int = 5
    token_dim: int = 128
    value_dim: int = 32
    n_queries: int = 8
    peak_dim: int = 128
    kinds: tuple[str, ...] = ("kidney", "chest")


class TextTowerConfig(_Strict):
    """A small BERT from scratch; its tokenizer is trained on the corpus and travels with it."""

    vocab_size: int = 3000
    hidden_size: int = 160
    layers: int = 3
    heads: int = 4
    intermediate_size: int = 480
    max_length: int = 128
    pooling: Literal["mean", "cls"] = "mean"


class ClipConfig(_Strict):
    """Both towers and the space they meet in."""

    image: ImageTowerConfig = ImageTowerConfig()
    text: TextTowerConfig = TextTowerConfig()
    embed_dim: int = 192
    initial_scale: float = 14.0
    max_scale: float = 60.0


class LocaliserConfig(_Strict):
    """A small 3D U-Net that marks the centres of regions on a coarse grid; fully convolutional, so any scan fits."""

    regions: tuple[str, ...] = ("kidney_left", "kidney_right", "chest")
    spacing_mm: float = 6.0
    channels: tuple[int, ...] = (12, 24, 48)
    windows_hu: tuple[tuple[float, float], ...] = ((-1000.0, 500.0), (-150.0, 250.0))
    blob_mm: float = 13.0
    min_confidence: float = 0.35
