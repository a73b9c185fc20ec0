"""The parts of a bundle that are exported as graphs, each with inputs to trace it by, and real crops to check it by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from medvl.errors import ConfigError
from medvl.imaging.phantom.render import region_centers, render, scanner_geometry
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.preprocess import window
from medvl.imaging.resample import resample
from medvl.inference.regions import Preparer
from medvl.models.bundle import Bundle, load_system
from medvl.models.clip import RegionClip
from medvl.models.localiser import Localiser, coarse_geometry
from medvl.models.system import System
from medvl.records import Volume
from medvl.text.prompts import load_findings

PHANTOMS, SEED = 3, 41
MAX_BATCH = 1024


class ImageSide(nn.Module):
    """Pixels (B, C, D, H, W) in [0, 1] and kinds (B,) to unit embeddings (B, E) and pooled features (B, P)."""

    def __init__(self, clip: RegionClip) -> None:
        super().__init__()
        self.image, self.pool, self.image_projection = clip.image, clip.pool, clip.image_projection

    def forward(self, pixel_values: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and pooled features."""
        pooled = self.pool(self.image(pixel_values), kind)
        every = torch.stack([layer(pooled) for layer in self.image_projection], 1).float()
        chosen = every[torch.arange(kind.shape[0], device=kind.device), kind]
        return functional.normalize(chosen, dim=-1), pooled


class StreamsSide(nn.Module):
    """Pixels (B, C, D, H, W) and kinds (B,) to log odds (B, K) of findings, then anatomies, and pooled features (B, P)."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.image, self.pool, self.streams = system.clip.image, system.clip.pool, cast(nn.Module, system.streams)
        banks = system.concepts()
        self.register_buffer("anatomies", banks["anatomies"])
        self.register_buffer("findings", banks["findings"])

    def forward(self, pixel_values: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        """Log odds and pooled features."""
        seen = self.image(pixel_values)
        told = self.streams(seen.tokens, seen.grid, self.anatomies, self.findings, attention=False)
        odds = [told[name][..., 1] - told[name][..., 0] for name in ("finding_logits", "anatomy_logits")]
        return torch.cat(odds, 1).float(), self.pool(seen, kind)


class TextSide(nn.Module):
    """Token ids (B, M) and mask (B, M) to unit embeddings (B, E)."""

    def __init__(self, clip: RegionClip) -> None:
        super().__init__()
        self.text, self.text_projection = clip.text, clip.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings."""
        return functional.normalize(self.text_projection(self.text(input_ids, attention_mask).pooled).float(), dim=-1)


class LocaliserSide(nn.Module):
    """Coarse windows (1, C, D, H, W), sides multiples of 4, to heat (1, R, D, H, W) in [0, 1], highest at a region's centre."""

    def __init__(self, localiser: Localiser) -> None:
        super().__init__()
        self.localiser = localiser

    def forward(self, coarse: Tensor) -> Tensor:
        """Heat."""
        heat: Tensor = self.localiser(coarse).sigmoid()
        return heat


@dataclass(frozen=True, eq=False)
class Side:
    """One graph.

    Args:
        name: of its file; module: in evaluation mode; inputs: by name, real ones, at least two rows where rows may vary.
        outputs: names; dynamic: by input, axes that may vary; other: inputs of other sizes, to check with.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: dict[str, Any]
    other: dict[str, Tensor]


def sides_of(bundle: Bundle, scans: Sequence[Volume] = ()) -> list[Side]:
    """Image side, text side where the text tower lies in the bundle, and localiser.

    Args:
        bundle: opened.
        scans: from which crops are cut; by default phantoms, where the bundle's regions are those of phantoms.

    Raises:
        ConfigError: no crop could be cut, so that nothing could be checked.
    """
    system, prepare = load_system(bundle), Preparer(bundle)
    pixels, kinds = crops_of(bundle, prepare, scans)
    batch = Dim("batch", min=1, max=MAX_BATCH)
    image: nn.Module = ImageSide(system.clip) if system.streams is None else StreamsSide(system)
    first = "image_embeds" if system.streams is None else "answers"
    rows = {"pixel_values": {0: batch}, "kind": {0: batch}}
    inputs = {"pixel_values": pixels, "kind": kinds}
    found = [Side("image", image.eval(), inputs, (first, "pooled"), rows, {name: held[:1] for name, held in inputs.items()})]
    tower = system.clip.text
    if not (tower.options.frozen and tower.remade):
        found.append(_text_side(bundle, system.clip))
    coarse = prepare.localiser.windows(_coarse(scans[0] if scans else _phantom(), prepare.localiser))
    axes = {2 + k: 4 * Dim(name, min=1, max=256) for k, name in enumerate(("d", "h", "w"))}
    net, other = LocaliserSide(prepare.localiser).eval(), {"coarse": coarse[:, :, 4:, :, :-4]}
    return [*found, Side("localiser", net, {"coarse": coarse}, ("heat",), {"coarse": axes}, other)]


def crops_of(bundle: Bundle, prepare: Preparer, scans: Sequence[Volume]) -> tuple[Tensor, Tensor]:
    """Pixels (N, C, D, H, W) and kinds (N,) of regions that share the first one's shape, N at least 2.

    Raises:
        ConfigError: none.
    """
    shape = (len(bundle.contract.regions[0].windows_hu), bundle.contract.regions[0].grid_dhw)
    numbers = {name: k for k, names in enumerate(bundle.kinds.values()) for name in names}
    cut: list[tuple[Tensor, int]] = []
    for hu in [_regions(bundle, prepare, scan) for scan in scans] or [_painted(bundle, n) for n in range(PHANTOMS)]:
        for name, values in hu.items():
            spec = bundle.contract[name]
            if (len(spec.windows_hu), spec.grid_dhw) == shape:
                cut.append((torch.from_numpy(window(values, spec.windows_hu)), numbers[name]))
    if not cut:
        raise ConfigError("no region to check the export with; give a scan that shows the bundle's regions with --check")
    cut = cut * 2 if len(cut) == 1 else cut
    return torch.stack([pixels for pixels, _ in cut]), torch.tensor([kind for _, kind in cut])


def _regions(bundle: Bundle, prepare: Preparer, scan: Volume) -> dict[str, np.ndarray]:
    return {name: r.hu for name, r in prepare(scan).regions.items() if r.hu is not None and not r.reasons}


def _painted(bundle: Bundle, number: int) -> dict[str, np.ndarray]:
    """Crops of a phantom around its true centres, those regions that phantoms have."""
    who = sample_patient(SEED, number)
    centers = {name: middle for name, middle in region_centers(who).items() if name in bundle.contract.names}
    return {name: render(who, bundle.contract[name].geometry(middle)).hu for name, middle in centers.items()}


def _phantom() -> Volume:
    who = sample_patient(SEED, 0)
    return render(who, scanner_geometry(who, (8.0, 4.0, 4.0)))


def _coarse(volume: Volume, localiser: Localiser) -> np.ndarray:
    return resample(volume, coarse_geometry(volume.geometry, localiser.config.spacing_mm))


def _text_side(bundle: Bundle, clip: RegionClip) -> Side:
    """Traced by the bundle's own questions."""
    findings = load_findings(bundle.text("findings.yaml"))
    asked = [finding.prompts(bundle.kinds[finding.region][0]) for finding in findings.findings[:4]]
    ids, mask = clip.tokenize([side[0] for sides in asked for side in sides])
    one_ids, one_mask = clip.tokenize([asked[0][0][0].split()[0]])
    batch, tokens = Dim("batch", min=1, max=MAX_BATCH), Dim("tokens", min=2, max=clip.text.max_length)
    axes = {0: batch, 1: tokens}
    inputs = {"input_ids": ids, "attention_mask": mask}
    dynamic = {"input_ids": axes, "attention_mask": axes}
    other = {"input_ids": one_ids, "attention_mask": one_mask}
    return Side("text", TextSide(clip).eval(), inputs, ("text_embeds",), dynamic, other)
