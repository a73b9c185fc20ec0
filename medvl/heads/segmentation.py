"""Masks of findings on model regions: a decoder on the pretrained encoder, its thresholds, and where the voxels lie.

A head is a folder of its own beside the bundle it came from: `segmentation.safetensors` and `segmentation.json`, which holds the
shapes, the regions with their windows, the thresholds and the hash of the weights that the encoder started from.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from medvl.errors import ConfigError
from medvl.files import whole, write_json
from medvl.geometry import Geometry
from medvl.heads.segment_net import SegmentationNet
from medvl.imaging.nifti import write_nifti
from medvl.imaging.preprocess import MIN_COVERED, Contract, to_hu_grid, window
from medvl.imaging.resample import covered_fraction
from medvl.models.config import ImageTowerConfig
from medvl.models.encoder import image_encoder
from medvl.records import Volume

SCHEMA = "medvl.segmentation/1"


class SegmentConfig(BaseModel):
    """What is segmented, and the decoder's width.

    Args:
        classes: names in the order of labels 1, 2, ...; label 0 is everything else.
        regions: of the contract; all share one grid.
        width, most: channels of the finest level and their limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[str, ...]
    regions: tuple[str, ...]
    width: int = 16
    most: int = 64


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels (D, H, W) uint8 of one region and where they lie; `covered` is the share of the region that the scan holds."""

    labels: NDArray[np.uint8]
    geometry: Geometry
    classes: tuple[str, ...]
    covered: float

    def mask(self, name: str) -> NDArray[np.bool_]:
        """(D, H, W) bool of one class."""
        return np.asarray(self.labels == self.classes.index(name) + 1)

    def volume_ml(self, name: str) -> float:
        """Volume of one class."""
        return float(self.mask(name).sum() * self.geometry.voxel_ml)

    def write(self, path: Path) -> None:
        """Write the labels as NIfTI with their affine."""
        write_nifti(self.labels, self.geometry, path)


class SegmentationHead:
    """A trained network with all that is needed to use it.

    Args:
        net: in evaluation mode.
        config: what it segments.
        contract: grids and windows; region grids must be alike.
        image: shape of the encoder.
        thresholds: one probability a class; chosen on validation patients.
        source: told with the head, such as the hash of the bundle's weights and how it was trained.
    """

    def __init__(
        self,
        net: SegmentationNet,
        config: SegmentConfig,
        contract: Contract,
        image: ImageTowerConfig,
        thresholds: Sequence[float] | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        self.net, self.config, self.contract, self.image = net, config, contract, image
        self.thresholds = tuple(thresholds or [0.5] * len(config.classes))
        self.source = dict(source or {})
        if len(self.thresholds) != len(config.classes):
            raise ConfigError(f"{len(self.thresholds)} thresholds for {len(config.classes)} classes; give one each")

    @classmethod
    def build(
        cls,
        config: SegmentConfig,
        contract: Contract,
        image: ImageTowerConfig,
        pretrained: nn.Module | None = None,
        *,
        seed: int = 0,
        source: Mapping[str, Any] | None = None,
    ) -> SegmentationHead:
        """A head to be trained; its encoder starts as a copy of `pretrained`, or from nothing.

        Raises:
            ConfigError: unknown regions, regions of different grids or numbers of windows, or weights of another shape.
        """
        specs = [contract[name] for name in config.regions]
        if not specs or len({(s.grid_dhw, len(s.windows_hu)) for s in specs}) > 1:
            raise ConfigError(f"regions {list(config.regions)} of a segmentation head need one grid and as many windows each")
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            encoder = image_encoder(image.model_copy(update={"grid_dhw": image.grid_dhw or specs[0].grid_dhw}))
            channels = len(specs[0].windows_hu)
            net = SegmentationNet(encoder, specs[0].grid_dhw, channels, len(config.classes) + 1, config.width, config.most)
        if pretrained is not None:
            try:
                encoder.load_state_dict(copy.deepcopy(pretrained.state_dict()))
            except RuntimeError as error:
                raise ConfigError(f"the pretrained encoder is no {image.name} of these shapes: {error}") from error
        return cls(net.eval(), config, contract, image, source=source)

    @torch.no_grad()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """(B, K, D, H, W) float32 on the CPU, without the background, of pixels (B, C, D, H, W) in [0, 1]."""
        self.net.eval()
        device = next(self.net.parameters()).device
        found: Tensor = self.net(pixels.to(device)).softmax(1)[:, 1:].cpu()
        return found

    def labels(self, probabilities: ArrayLike) -> NDArray[np.uint8]:
        """(D, H, W) labels from (K, D, H, W): of classes at or above their thresholds, the one with the largest ratio to it."""
        values = np.asarray(probabilities, dtype=np.float64)
        ratio = values / np.array(self.thresholds)[:, None, None, None]
        return np.where(ratio.max(0) >= 1, ratio.argmax(0) + 1, 0).astype(np.uint8)

    def segment(self, volume: Volume, region: str, center_lps: ArrayLike) -> Segmentation:
        """Segment one region of a scan.

        Args:
            volume: HU with geometry.
            region: one of the head's.
            center_lps: (3,) mm, from the localiser or a mask.

        Raises:
            ConfigError: a region that the head does not know, or of which the scan holds too little.
        """
        if region not in self.config.regions:
            raise ConfigError(f"the segmentation head knows {', '.join(self.config.regions)}, not {region}")
        spec = self.contract[region]
        grid = spec.geometry(center_lps)
        covered = covered_fraction(volume.geometry, grid)
        if covered < MIN_COVERED:
            raise ConfigError(f"the scan covers {covered:.0%} of {region}; at least {MIN_COVERED:.0%} is needed to segment it")
        hu = to_hu_grid(volume, grid, fill=self.contract.fill_hu)
        found = self.probabilities(torch.from_numpy(window(hu, spec.windows_hu))[None])[0]
        return Segmentation(self.labels(found.numpy()), grid, self.config.classes, covered)

    def save(self, folder: Path) -> None:
        """Write `segmentation.safetensors` and, last, `segmentation.json` into `folder`, made when missing."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        with whole(folder / "segmentation.safetensors") as part:
            save_file({k: v.contiguous() for k, v in self.net.state_dict().items()}, part)
        told = {
            "schema": SCHEMA,
            "config": self.config.model_dump(),
            "image": self.image.model_dump(),
            "contract": self.contract.to_json(),
            "thresholds": list(self.thresholds),
            "source": self.source,
        }
        write_json(folder / "segmentation.json", told)

    @classmethod
    def load(cls, folder: Path) -> SegmentationHead:
        """What `save` wrote.

        Raises:
            ConfigError: nothing there, another schema, or weights that do not fit.
        """
        from safetensors.torch import load_file

        try:
            told = json.loads((folder / "segmentation.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(f"no segmentation.json in {folder}; train a head or give its folder") from error
        if told.get("schema") != SCHEMA:
            raise ConfigError(
                f"expected schema {SCHEMA} in segmentation.json, found {told.get('schema')}; this medvl cannot read it"
            )
        try:
            config, image = SegmentConfig.model_validate(told["config"]), ImageTowerConfig.model_validate(told["image"])
            head = cls.build(config, Contract.from_json(told["contract"]), image)
            head.net.load_state_dict(load_file(folder / "segmentation.safetensors"))
        except (ValidationError, RuntimeError) as error:
            raise ConfigError(f"segmentation.json and its weights do not fit one another: {error}") from error
        return cls(head.net.eval(), config, head.contract, image, told["thresholds"], told["source"])
