"""Model shapes as data. These travel in a bundle as `model.json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageTowerConfig(_Strict):
    """The image tower; `kinds` names what a region may be, each with its own queries and projection.

    Args:
        name: an encoder of `medvl.models.encoders`, or ``region_resnet``.
        grid_dhw: voxels of a region; needed by transformers.
        options: of the named encoder.
        pool: ``evidence`` gathers by queries, mean and maximum over tokens; ``own`` takes the encoder's pooling.
        widths, blocks, stem_kernel, token_dim: of ``region_resnet``.
        value_dim, n_queries, peak_dim: of the evidence pool.
    """

    name: str = "region_resnet"
    in_channels: int = 2
    grid_dhw: tuple[int, int, int] | None = None
    options: dict[str, Any] = {}
    pool: Literal["evidence", "own"] = "evidence"
    widths: tuple[int, int, int, int] = (32, 64, 128, 192)
    blocks: tuple[int, int, int, int] = (1, 1, 1, 1)
    stem_kernel: int = 5
    token_dim: int = 128
    value_dim: int = 32
    n_queries: int = 8
    peak_dim: int = 128
    kinds: tuple[str, ...] = ("kidney", "chest")


class TextTowerConfig(_Strict):
    """The text tower; by default a small BERT from scratch, whose tokenizer is trained on the corpus and travels with it.

    Args:
        name: ``bert``, or a tower of `medvl.models.towers` such as ``hf`` or ``llm2vec``, with its `options`.
        vocab_size, hidden_size, layers, heads, intermediate_size, max_length: of ``bert``.
        pooling: mean over real tokens, [CLS], or ``highest_id``: the token with the largest id, as Cardiac-CLIP's release does.
        dropout: of ``bert``.
    """

    name: str = "bert"
    options: dict[str, Any] = {}
    vocab_size: int = 3000
    hidden_size: int = 160
    layers: int = 3
    heads: int = 4
    intermediate_size: int = 480
    max_length: int = 128
    pooling: Literal["mean", "cls", "highest_id"] = "mean"
    dropout: float = 0.05


class ClipConfig(_Strict):
    """Both towers and the space they meet in.

    Args:
        text_projection: a linear layer on the text side; without it the images are brought into the text tower's own space,
            whose width must then be `embed_dim` (RenalCLIP).
    """

    image: ImageTowerConfig = ImageTowerConfig()
    text: TextTowerConfig = TextTowerConfig()
    embed_dim: int = 192
    text_projection: bool = True


class LocaliserConfig(_Strict):
    """A small 3D U-Net that marks the centres of regions on a coarse grid; fully convolutional, so any scan fits."""

    regions: tuple[str, ...] = ("kidney_left", "kidney_right", "chest")
    spacing_mm: float = 6.0
    channels: tuple[int, ...] = (12, 24, 48)
    windows_hu: tuple[tuple[float, float], ...] = ((-1000.0, 500.0), (-150.0, 250.0))
    blob_mm: float = 13.0
    min_confidence: float = 0.35
