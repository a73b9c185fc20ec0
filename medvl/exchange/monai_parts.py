"""What the configuration of an exported MONAI bundle names: transforms, network, inferer and the loop around them.

Together they do what `medvl infer` does, by the same code: the bundle's localiser finds regions, its contract cuts them, its
towers read them, its calibration turns margins into scores and verdicts. Only evidence (heat maps, deletion tests) is missing.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import Inferer
from monai.transforms.transform import MapTransform, Transform
from numpy.typing import NDArray
from torch import Tensor, nn

from medvl.exchange.layout import LaidOut, open_laid_out
from medvl.geometry import Geometry
from medvl.heads.answering import Read
from medvl.imaging.load import load
from medvl.imaging.preprocess import window
from medvl.inference.chunks import read_parts
from medvl.inference.predictor import Predictor
from medvl.inference.regions import Prepared, Preparer
from medvl.models.encoders.base import Encoded
from medvl.records import Volume

Item = dict[Hashable, Any]


@lru_cache(maxsize=4)
def _opened(models: str) -> LaidOut:
    return open_laid_out(Path(models))


class LoadScand(MapTransform):
    """Reads what medvl reads: a NIfTI file, or a DICOM folder, file or zip, of which the series that suits best is taken.

    Gives a `MetaTensor` (1, W, H, D) float32 HU with its affine to RAS mm, as MONAI's own `LoadImaged` and
    `EnsureChannelFirstd` would. HU, orientation and spacing are checked on the way; what fails is refused with the reason.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """The item with its scans.

        Raises:
            InputError: no CT volume there.
        """
        return dict(data) | {key: self._load(Path(data[key])) for key in self.key_iterator(data)}

    def _load(self, path: Path) -> MetaTensor:
        found = load(path)
        volume = found.studies[0].read() if found.chosen is None else found.chosen.read()
        values = torch.from_numpy(volume.hu.transpose(2, 1, 0).astype(np.float32))[None]
        return MetaTensor(values, torch.from_numpy(volume.geometry.affine_ras_ijk), meta={"filename_or_obj": str(path)})


class RegionsFromScand(MapTransform):
    """From a scan to the model's regions: found by the localiser, cut and windowed as the input contract says.

    Reads `keys` (1, W, H, D) HU with the affine of a `MetaTensor`; adds `prepared`, `pixel_values`, (C, D, H, W) float32 in
    [0, 1] of each of the R regions that can be used, `kind` (R,) int64 and `region`, their names; takes the scan itself away.

    Args:
        keys: of the scan, one.
        models: folder of the exported bundle's weights.
    """

    def __init__(self, keys: KeysCollection, models: str) -> None:
        super().__init__(keys)
        bundle = _opened(str(models))
        self.prepare, self.contract, self.kinds = Preparer(bundle), bundle.contract, bundle.kinds

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """The item with its regions."""
        found: Item = {key: value for key, value in data.items() if key not in self.keys}
        scan = data[self.keys[0]]
        prepared = self.prepare(_volume(scan))
        kinds = [k for k, names in enumerate(self.kinds.values()) for name in names if _usable(prepared, name)]
        names = [name for names in self.kinds.values() for name in names if _usable(prepared, name)]
        found |= {"prepared": prepared, "region": names, "kind": torch.tensor(kinds, dtype=torch.int64)}
        found["pixel_values"] = [self._pixels(prepared, name) for name in names]
        found["source"] = str(getattr(scan, "meta", {}).get("filename_or_obj", ""))
        return found

    def _pixels(self, prepared: Prepared, name: str) -> Tensor:
        return torch.from_numpy(window(np.asarray(prepared.regions[name].hu), self.contract[name].windows_hu))


class RegionNetwork(nn.Module):
    """The bundle's towers, or concept streams, with what turns their answers into verdicts.

    Args:
        models: folder of the exported bundle's weights; every file in it is checked.
    """

    def __init__(self, models: str) -> None:
        super().__init__()
        self.bundle = _opened(str(models))
        self._concluder = _Concluder(self.bundle)
        self.system = self._concluder.answering.system

    def forward(self, image: Tensor, kind: int = 0) -> Tensor:
        """(B, K) answers of regions (B, C, D, H, W) of one kind: unit embeddings, or the log odds of concept streams."""
        return self._concluder.answering.read(image, kind).answers.to(image.device)

    def read(self, pixels: Sequence[Tensor], kinds: Tensor) -> list[Read]:
        """What the system makes of each of R regions, grouped by kind as `medvl infer` does."""
        found: dict[int, Read] = {}
        for kind in kinds.unique().tolist():
            rows = (kinds == kind).nonzero()[:, 0].tolist()
            mine = [pixels[row] for row in rows]
            read, _ = read_parts(self._concluder.answering, mine.__getitem__, len(rows), kind)
            found |= {row: Read(*(part[at : at + 1] for part in read)) for at, row in enumerate(rows)}
        return [found[row] for row in range(len(kinds))]

    def conclude(self, prepared: Prepared, reads: Mapping[str, Read]) -> Any:
        """The `CaseResult` of one scan from what was read of its regions."""
        return self._concluder.conclude(prepared, reads)


class _Concluder(Predictor):
    """The second half of inference, on regions that were read elsewhere."""

    def conclude(self, prepared: Prepared, reads: Mapping[str, Read]) -> Any:
        self._reads = dict(reads)
        return self.answer([prepared], explain=False)[0]

    def _read(self, hu: Sequence[NDArray[np.int16]], regions: Sequence[str]) -> tuple[Read, list[Encoded]]:
        rows = [self._reads[name] for name in regions]
        none = Encoded(torch.zeros(1, 0, 0), (0, 0, 0), torch.zeros(1, 0))
        return Read(*(torch.cat(column) for column in zip(*rows, strict=True))), [none] * len(rows)


class RegionInferer(Inferer):
    """Runs a `RegionNetwork` on the regions of an item of `RegionsFromScand`."""

    def __call__(self, inputs: Any, network: Any, *args: Any, **kwargs: Any) -> dict[str, Read]:
        """Region to what was read of it, where other inferers take a tensor and give one."""
        names = inputs["region"]
        return dict(zip(names, network.read(inputs["pixel_values"], inputs["kind"]), strict=True)) if names else {}


class Conclude(Transform):
    """Adds `result`, the `CaseResult` of a scan, from `prepared` and `pred`.

    Args:
        network: that read the regions.
    """

    def __init__(self, network: RegionNetwork) -> None:
        self.network = network

    def __call__(self, data: Item) -> Item:
        """The item with its result."""
        return data | {"result": self.network.conclude(data["prepared"], data["pred"])}


class Evaluator:
    """The loop: scan by scan through preprocessing, network and postprocessing. Needs no engine library.

    Args:
        dataset: of items that `RegionsFromScand` made.
        network: on its device; inferer: how it is run; postprocessing: what is made of an item with `pred`.
    """

    def __init__(
        self, dataset: Sequence[Item], network: RegionNetwork, inferer: RegionInferer, postprocessing: Any = None
    ) -> None:
        self.dataset, self.network, self.inferer, self.postprocessing = dataset, network, inferer, postprocessing

    def run(self) -> list[Item]:
        """Every item, after postprocessing, without its pixels."""
        self.network.eval()
        return [self._one(number) for number in range(len(self.dataset))]

    def _one(self, number: int) -> Item:
        item = dict(self.dataset[number])
        with torch.no_grad():
            item["pred"] = self.inferer(item, self.network)
        done = item if self.postprocessing is None else self.postprocessing(item)
        return {key: value for key, value in done.items() if key not in ("pixel_values", "prepared")}


def _usable(prepared: Prepared, name: str) -> bool:
    region = prepared.regions[name]
    return region.hu is not None and not region.reasons


def _volume(scan: Any) -> Volume:
    """HU with geometry of (1, W, H, D) or (W, H, D) with an affine."""
    held = scan if isinstance(scan, MetaTensor) else MetaTensor(scan)
    values = held.as_tensor()
    values = values[0] if values.ndim == 4 else values
    shape = (int(values.shape[0]), int(values.shape[1]), int(values.shape[2]))
    hu = values.permute(2, 1, 0).contiguous().float().numpy()
    return Volume(hu, Geometry.from_ras_ijk(shape, np.asarray(held.affine)))
