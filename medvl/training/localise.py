"""The localiser learns the centres of regions from whole phantom scans, cut short at random along the body."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.imaging.phantom.render import region_centers, render, scanner_geometry
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.resample import resample
from medvl.models.bundle import open_bundle
from medvl.models.config import LocaliserConfig
from medvl.models.localiser import Localiser, coarse_geometry
from medvl.recipe import Recipe, as_plain
from medvl.training.kept import settle
from medvl.training.loop import fit
from medvl.training.machine import Machine
from medvl.training.task import Part, Plan, Task

PAINT_MM = (5.0, 4.0, 4.0)
POSITIVE_WEIGHT = 25.0


@dataclass(frozen=True, eq=False)
class CoarseScan:
    """One whole phantom on the localiser's grid: (D, H, W) int16 HU, its grid and the true centres by region."""

    hu: NDArray[np.int16]
    geometry: Geometry
    centers: dict[str, NDArray[np.float64]]


def coarse_scan(seed: int, number: int, spacing_mm: float) -> CoarseScan:
    """Paint a whole phantom with a random field of view and resample it as the localiser would."""
    patient = sample_patient(seed, number)
    volume = render(patient, scanner_geometry(patient, PAINT_MM))
    grid = coarse_geometry(volume.geometry, spacing_mm)
    return CoarseScan(np.rint(resample(volume, grid)).astype(np.int16), grid, region_centers(patient))


def heat_targets(scan: CoarseScan, config: LocaliserConfig) -> NDArray[np.float32]:
    """(R, D, H, W) Gaussian blobs of height 1 at the centres, cut at the edge of the grid."""
    d, h, w = scan.geometry.shape_dhw
    index = [scan.geometry.to_index(scan.centers[name]) for name in config.regions]
    sigma = config.blob_mm / config.spacing_mm
    return np.stack(
        [
            np.exp(
                -(
                    (np.arange(d)[:, None, None] - c[0]) ** 2
                    + (np.arange(h)[None, :, None] - c[1]) ** 2
                    + (np.arange(w)[None, None, :] - c[2]) ** 2
                )
                / (2 * sigma**2)
            )
            for c in index
        ]
    ).astype(np.float32)


class LocaliseTask(Task):
    """Whole phantoms of the training numbers, a few a step.

    Args:
        model: trained in place; scans: what it sees; batch: scans a step; seed: of the run.
    """

    def __init__(self, model: Localiser, scans: Sequence[CoarseScan], batch: int, seed: int) -> None:
        super().__init__()
        self.model, self._scans, self._batch, self._seed = model, scans, batch, seed

    def plan(self, step: int) -> Plan:
        """Which scans."""
        rng = np.random.default_rng([self._seed, 9, step])
        return Plan(step, {"samples": self._batch}, {"scan": rng.integers(len(self._scans), size=self._batch)})

    def load(self, plan: Plan, part: Part) -> dict[str, Tensor]:
        """Windows and heat targets of each scan, under its place in the batch, since scans differ in size."""
        inputs = {}
        for place in part["samples"]:
            rng = np.random.default_rng([self._seed, 10, plan.step, int(place)])
            scan = self._scans[int(plan.drawn["scan"][place])]
            hu, heat = _cut(scan, heat_targets(scan, self.model.config), rng)
            inputs[f"pixels.{place}"], inputs[f"heat.{place}"] = self.model.windows(hu), torch.from_numpy(heat)[None]
        return inputs

    def represent(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of each scan (B,)."""
        places = [name.partition(".")[2] for name in inputs if name.startswith("pixels.")]
        return {"loss": torch.stack([_loss(self.model(inputs[f"pixels.{p}"]), inputs[f"heat.{p}"]) for p in places])}

    def compare(self, found: Mapping[str, Tensor], plan: Plan) -> tuple[Tensor, dict[str, float]]:
        """Their mean."""
        loss = found["loss"].mean()
        return loss, {"loss": float(loss.detach())}

    def groups(self) -> Sequence[tuple[Sequence[nn.Parameter], float]]:
        """Everything."""
        return [(list(self.model.parameters()), 1.0)]


def localiser_folder(recipe: Recipe, stages: Path) -> Path:
    """Where the recipe's localiser is kept: a hash of everything it depends on."""
    plain = as_plain(recipe)
    what = [plain["localiser"], plain["localise"], recipe.cohort.seed, recipe.seed]
    return stages / f"localiser-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]}"


def localise_stage(
    recipe: Recipe, stages: Path, progress: Callable[[int, int, Mapping[str, float]], None], machine: Machine | None = None
) -> Localiser:
    """The recipe's localiser on the processor, trained, or read back when its stage is there already."""
    machine, config = machine or Machine(), recipe.localise
    if config is None:
        raise ConfigError(f"recipe {recipe.name} has no localise stage")
    folder = localiser_folder(recipe, stages)
    torch.manual_seed(recipe.seed)
    model = Localiser(recipe.localiser)
    options = machine.options(
        steps=config.steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup=config.warmup,
        clip_norm=None,
        seed=recipe.seed,
    )

    def train() -> None:
        scans = []
        for number in range(config.scans):
            scans.append(coarse_scan(recipe.cohort.seed, number, recipe.localiser.spacing_mm))
            progress(number + 1, config.scans, {})
        fit(LocaliseTask(model, scans, config.batch, recipe.seed), options, folder, progress)

    settle(model, folder, machine.world, train)
    return model.cpu()


def from_bundle(folder: Path) -> Localiser:
    """The localiser of a bundle."""
    bundle = open_bundle(folder)
    model = Localiser(LocaliserConfig.model_validate(bundle.values("model.json")["localiser"]))
    weights = bundle.tensors("weights.safetensors")
    model.load_state_dict({k.removeprefix("localiser."): v for k, v in weights.items() if k.startswith("localiser.")})
    return model.eval()


def _cut(
    scan: CoarseScan, heat: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A random part along the body of at least 45 %, with gain, offset and noise varied, and the same part of the targets."""
    depth = scan.hu.shape[0]
    kept = max(12, int(depth * rng.uniform(0.45, 1.0)) // 4 * 4)
    start = int(rng.integers(0, depth - kept + 1))
    hu = scan.hu[start : start + kept]
    varied = hu * rng.normal(1, 0.03) + rng.normal(0, 10) + rng.standard_normal(hu.shape) * rng.uniform(0, 12)
    return varied.astype(np.float32), heat[:, start : start + kept]


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    """() cross-entropy with the heat; naming the wrong organ costs as much as missing the right one."""
    loss = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    anywhere = target.amax(1, keepdim=True)
    return ((1 + POSITIVE_WEIGHT * anywhere) * loss).mean()
