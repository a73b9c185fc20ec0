"""Built-in recipes shrunk to seconds, and how to run `medvl train` on them as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from medvl.recipe import load_recipe
from medvl_pipelines.built_in import recipe_file

_GRID = [16, 16, 16]
_REGIONS = [
    {"name": name, "grid_dhw": _GRID, "spacing_mm": [mm] * 3, "windows_hu": [[-150, 250], [-200, 1000]]}
    for name, mm in (("kidney_left", 7.5), ("kidney_right", 7.5), ("chest", 13.5))
]
_TEXT = {"vocab_size": 300, "hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 32, "max_length": 96, "dropout": 0.0}
_SMALL: dict[str, Any] = {
    "cohort": {"seed": 11, "n_train": 16, "n_validation": 8, "n_test": 2, "jitter_mm": 9.0},
    "contract.regions": _REGIONS,
    "model.text": _TEXT,
    "model.embed_dim": 16,
    "statements": 60,
    "workers": 1,
}
_KINDS = {"kinds": ["kidney", "chest"], "grid_dhw": _GRID, "pool": "own"}
_VIT = {"patch": 4, "width": 16, "depth": 2, "heads": 2, "class_token": True, "pool": "class"}
_RESNET = {"widths": [8, 8, 8, 8], "stem_kernel": 3, "max_pool": False, "stage": 2, "norm": "instance"}
_MODELS: dict[str, dict[str, Any]] = {
    "cardiac-clip-small": {
        "model.image": {"name": "vit", **_KINDS, "options": _VIT},
        "model.reconstruct": {"mask_ratio": 0.75, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
    },
    "medslip-small": {
        "model.image": {"name": "resnet10", **_KINDS, "options": _RESNET},
        "model.streams": {"hidden": 16, "layers": 1, "heads": 2, "feedforward": 32, "dropout": 0.0},
    },
}


def overrides(recipe: str, steps: int = 4) -> list[str]:
    """Values for `--set` that make every stage of a built-in recipe tiny, in full precision and without dropout."""
    changes = _SMALL | _MODELS[recipe]
    for stage in load_recipe(recipe_file(recipe)).stages:
        short: dict[str, Any] = {"steps": steps, "batch": 6, "warmup": 1, "precision": "fp32"}
        if stage.statements:
            short["statements"] = 6
        changes |= {f"stages.{stage.name}.{key}": value for key, value in short.items()}
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


def command(recipe: str, out: Path, *more: str, steps: int = 4, processes: int = 0) -> list[str]:
    """The words of a shell that train a shrunken recipe; with `processes` under torchrun."""
    medvl = str(Path(sys.executable).with_name("medvl"))
    words = ["train", recipe, "--out", str(out), "--device", "cpu", "--threads", "1", *more]
    words += [word for change in overrides(recipe, steps) for word in ("--set", change)]
    if not processes:
        return [medvl, *words]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--no-python"]
    return [*launch, medvl, *words]


def run(words: list[str], timeout: int = 900) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, env=environment(), check=False)


def environment() -> dict[str, str]:
    """One thread, plain output."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def stages(out: Path) -> dict[str, Path]:
    """Finished stages of a run by name."""
    return {path.parent.name.rpartition("-")[0]: path.parent for path in sorted(out.glob("stages/*/receipt.json"))}


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of each stage's weights, as its receipt says."""
    return {name: json.loads((folder / "receipt.json").read_text())["sha256"] for name, folder in stages(out).items()}


def curves(folder: Path) -> list[dict[str, float]]:
    """Every step of a stage."""
    return [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
