"""Checkpoints that other projects released, under our names: what fits, what does not, and a start for a recipe.

Names and shapes are those of `medvl.models.releases`. Checkpoints are opened as tensors alone (`weights_only`):
no code in them runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medvl import __version__
from medvl.errors import ConfigError, did_you_mean
from medvl.exchange.layout import growing
from medvl.files import write_json
from medvl.models.bundle import sha256_of
from medvl.models.encoders.registry import build_encoder
from medvl.models.releases import cardiac_clip, medslip, renalclip
from medvl.models.streams import ConceptStreams, StreamsConfig
from medvl.models.system import System
from medvl.models.weights import KeyMap, LoadReport, load_weights, read_state_dict

SCHEMA = "medvl.release/1"
_EVERY_KIND = "clip.image_projection.0."


@dataclass(frozen=True)
class Part:
    """One of our parts that a release has weights for.

    Args:
        prefix: of its names in our system; build: the part, without weights; names: of theirs.
    """

    prefix: str
    build: Callable[[], nn.Module]
    names: KeyMap


@dataclass(frozen=True)
class Release:
    """What a release is made of here.

    Args:
        parts: ours; model: the `model` section of a recipe that takes its weights.
    """

    parts: tuple[Part, ...]
    model: dict[str, Any]


@dataclass(frozen=True)
class ImportReport:
    """What became of every weight of a checkpoint.

    Args:
        parts: by prefix, what fitted and what did not.
        left: names of parts that have no counterpart here, such as a language encoder; known, and not taken.
    """

    parts: dict[str, LoadReport]
    left: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every weight of our parts was found, and every weight of theirs is explained."""
        return not any(report.missing or report.unexpected or report.wrong_shape for report in self.parts.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"parts": {name: report._asdict() for name, report in self.parts.items()}, "left": list(self.left)}


def release(system: str, windows: int = 3) -> Release:
    """The release of `system`: renalclip, cardiac-clip or medslip.

    Args:
        system: its name.
        windows: HU windows of the input, for medslip: 3 take the place of red, green and blue, 1 of their sum.

    Raises:
        ConfigError: no such system, or a number of windows that does not fit.
    """
    if system == "renalclip":
        return _towers(renalclip, 512, {"pool": "own"})
    if system == "cardiac-clip":
        return _towers(cardiac_clip, int(cardiac_clip.OPTIONS["width"]), {"pool": "own"})
    if system != "medslip":
        raise ConfigError(f"no release called {system}; {did_you_mean(system, ('renalclip', 'cardiac-clip', 'medslip'))}")
    trunk = {"name": medslip.NAME, "in_channels": windows, "options": medslip.OPTIONS, "pool": "own"}
    build = _encoder(medslip.NAME, windows, (32, 64, 64), medslip.OPTIONS)
    streams = StreamsConfig(**medslip.STREAMS)
    concepts = Part("streams.", lambda: ConceptStreams(streams, 1024, medslip.CONCEPT_DIM, 51, 75), medslip.CONCEPTS)
    return Release((Part("clip.image.", build, medslip.image(windows)), concepts), {"image": trunk, "streams": medslip.STREAMS})


def import_release(system: str, checkpoint: Path, out: Path, windows: int = 3) -> ImportReport:
    """Read a checkpoint, and write it to `out` under our names if everything in it is explained.

    `weights.safetensors` and `release.json` are what `medvl train --start` takes; `model.yaml` is the section of a recipe that
    they fit.

    Raises:
        ConfigError: no such system, a checkpoint that cannot be read as tensors or of which nothing fits, or `out` is not empty.
    """
    known, state = release(system, windows), read_state_dict(checkpoint)
    shapes = {name: value.to("meta") for name, value in state.items()}
    reports, weights = {}, dict[str, Tensor]()
    for part in known.parts:
        with torch.device("meta"):
            module = part.build()
        reports[part.prefix] = load_weights(module, shapes, key_map=part.names, strict=False)
        ours = part.names(state)
        weights |= {part.prefix + name: ours[name].contiguous().clone() for name in reports[part.prefix].matched}
    report = ImportReport(reports, _left(known, state))
    if not report.complete:
        return report
    told = {
        "schema": SCHEMA,
        "system": system,
        "software": f"medvl {__version__}",
        "checkpoint_sha256": sha256_of(checkpoint),
        "model": known.model,
        "report": report.as_dict(),
    }
    with growing(out) as folder:
        save_file(weights, folder / "weights.safetensors")
        write_json(folder / "release.json", told)
        (folder / "model.yaml").write_text(yaml.safe_dump({"model": known.model}, sort_keys=False), encoding="utf-8")
    return report


def begin_with(folder: Path, system: System) -> int:
    """Put imported weights into a fresh system, in place; the others stay. Every kind of region gets the one projection.

    Returns:
        How many weights were set.

    Raises:
        ConfigError: `folder` holds no import, or the system has not the shapes of the release.
    """
    try:
        told = json.loads((folder / "release.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"no release.json in {folder}; give a folder that `medvl import-release` wrote") from error
    if not isinstance(told, Mapping) or told.get("schema") != SCHEMA:
        raise ConfigError(f"release.json in {folder} has not the schema {SCHEMA}; import the checkpoint again")
    mine, wanted = system.state_dict(), dict[str, Tensor]()
    for name, value in load_file(folder / "weights.safetensors").items():
        if name.startswith(_EVERY_KIND):
            end = name.removeprefix(_EVERY_KIND)
            wanted |= {f"clip.image_projection.{k}.{end}": value for k in range(len(system.clip.image_projection))}
        else:
            wanted[name] = value
    wrong = [name for name, value in wanted.items() if name not in mine or mine[name].shape != value.shape]
    if wrong:
        raise ConfigError(
            f"the recipe's model does not take the weights of {told['system']}: {wrong[0]} and {len(wrong) - 1} others; "
            f"give the recipe the section in {folder.name}/model.yaml"
        )
    system.load_state_dict(wanted, strict=False)
    return len(wanted)


def _towers(module: Any, pooled: int, more: Mapping[str, Any]) -> Release:
    """An image tower with a projection."""
    build = _encoder(module.NAME, module.IN_CHANNELS, module.GRID_DHW, module.OPTIONS)
    image = {"name": module.NAME, "in_channels": module.IN_CHANNELS, "grid_dhw": list(module.GRID_DHW)}
    projection = Part(_EVERY_KIND, lambda: nn.Linear(pooled, module.EMBED_DIM), module.PROJECTION)
    model = {"image": {**image, "options": dict(module.OPTIONS), **more}, "embed_dim": module.EMBED_DIM}
    return Release((Part("clip.image.", build, module.IMAGE), projection), model)


def _encoder(name: str, channels: int, grid: tuple[int, int, int], options: Mapping[str, Any]) -> Callable[[], nn.Module]:
    return lambda: build_encoder(name, in_channels=channels, grid_dhw=grid, options=options)


def _left(known: Release, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names that every part knows as another's, and none takes."""
    return tuple(name for name, value in state.items() if not any(part.names({name: value.to("meta")}) for part in known.parts))
