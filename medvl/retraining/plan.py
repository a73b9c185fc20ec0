"""What a retraining trains: the stages of the recipe behind a bundle, shortened and slowed for a cohort of another size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medvl.errors import ConfigError
from medvl.models.bundle import Bundle
from medvl.recipe import Recipe, StageConfig, as_plain
from medvl.retraining.presets import Preset

RECIPE_FILE = "recipe.json"
OWN_LAYERS = ("attributes", "text_attributes")  # objectives whose layers a bundle does not keep
NEEDS_PHANTOMS = ("marks",)  # objectives that only phantoms can answer


class RetrainPlan(BaseModel):
    """How the parent's stages are changed.

    Args:
        rate: factor on learning rates.
        passes: over the training regions for stages that read pixels; cheap_passes: for the others.
        least_steps: of a stage; the most are those of the parent's recipe.
        heads_steps: for fresh layers of objectives alone, on frozen towers; 0 leaves these stages out.
        blend: shares of the way from the parent's weights to the trained ones, of which validation patients choose one.
        skip: names of stages to leave out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    summary: str
    rate: float = Field(0.3, gt=0)
    passes: float = Field(6, gt=0)
    cheap_passes: float = Field(40, gt=0)
    least_steps: int = Field(40, ge=1)
    heads_steps: int = Field(200, ge=0)
    blend: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    skip: tuple[str, ...] = ()


def load_plan(path: Path) -> RetrainPlan:
    """The plan in a YAML file.

    Raises:
        ConfigError: not there, malformed, an unknown key or a value out of range.
    """
    try:
        return RetrainPlan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigError(f"no retraining plan at {path}") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path} is not a retraining plan: {error}") from error


def recipe_of(bundle: Bundle, built_in: Recipe | None = None) -> Recipe:
    """The recipe that made a bundle: the one it holds, else the built-in recipe of its name if that makes the same shapes.

    Raises:
        ConfigError: neither is there.
    """
    if RECIPE_FILE in bundle:
        try:
            return Recipe.model_validate(bundle.values(RECIPE_FILE))
        except ValidationError as error:
            raise ConfigError(f"the recipe in bundle {bundle.name} is of another version of medvl; give --recipe") from error
    if built_in is not None and _same_shapes(bundle, built_in):
        return built_in
    raise ConfigError(
        f"bundle {bundle.name} holds no {RECIPE_FILE} and no built-in recipe makes its shapes; give the recipe it came from "
        "with --recipe"
    )


def _same_shapes(bundle: Bundle, recipe: Recipe) -> bool:
    from medvl.models.config import ClipConfig

    mine = {key: getattr(recipe.model, key) for key in ClipConfig.model_fields}
    shapes = ClipConfig.model_validate(bundle.values("model.json")["clip"])
    return shapes == ClipConfig(**mine) and recipe.input_contract.hash == bundle.contract.hash


def continued(recipe: Recipe, plan: RetrainPlan, preset: Preset, n_regions: int, name: str) -> Recipe:
    """The recipe of a retraining from the parent's weights.

    Args:
        recipe: of the parent.
        plan: how its stages change.
        preset: bounds batches.
        n_regions: usable training regions of the new cohort.
        name: of the new bundle.

    Raises:
        ConfigError: the plan skips a stage that there is not, or leaves none.
    """
    known = [stage.name for stage in recipe.stages]
    strange = [stage for stage in plan.skip if stage not in known]
    if strange:
        raise ConfigError(f"the plan skips {strange[0]}, which is no stage of {recipe.name}: {', '.join(known)}")
    kept = [_without_phantoms(stage) for stage in recipe.stages if stage.steps and stage.name not in plan.skip]
    stages = [made for stage in kept if stage.objectives for made in [_slower(stage, plan, preset, n_regions)]]
    if not stages:
        raise ConfigError(f"the plan leaves no stage of {recipe.name} to train")
    values = dict(as_plain(recipe)) | {
        "name": name,
        "summary": f"{recipe.name}, trained on with studies of another place",
        "stages": [stage.model_dump(mode="json") for stage in _with_heads(stages, plan)],
        "localise": None,
        "data_from": None,
    }
    return Recipe.model_validate(values)


def started_afresh(recipe: Recipe, preset: Preset, n_regions: int, name: str) -> Recipe:
    """A recipe that begins from nothing, for this machine: batches and grid by preset, the localiser being the parent's."""
    batches = [stage.model_copy(update={"batch": preset.batch_of(stage.batch, n_regions)}) for stage in recipe.stages]
    told = {"precision": preset.precision, "workers": preset.workers}
    stages = [_without_phantoms(stage).model_copy(update=told) for stage in batches]
    values = dict(as_plain(recipe)) | {
        "name": name,
        "stages": [stage.model_dump(mode="json") for stage in stages if stage.objectives],
        "localise": None,
        "data_from": None,
    }
    _finer(values, preset.grid)
    return Recipe.model_validate(values)


def _finer(values: dict[str, Any], factor: float) -> None:
    """More voxels in the same field of view, in multiples of 8 along each axis; in place."""
    if factor == 1.0:
        return
    for region in values["contract"]["regions"]:
        grid = [max(8, 8 * round(n * factor / 8)) for n in region["grid_dhw"]]
        sizes = zip(region["spacing_mm"], region["grid_dhw"], grid, strict=True)
        region["spacing_mm"] = [round(mm * old / new, 4) for mm, old, new in sizes]
        region["grid_dhw"] = grid
    if values["model"]["image"].get("grid_dhw"):
        values["model"]["image"]["grid_dhw"] = values["contract"]["regions"][0]["grid_dhw"]


def _without_phantoms(stage: StageConfig) -> StageConfig:
    left = {k: v for k, v in stage.objectives.items() if v.get("type", k) not in NEEDS_PHANTOMS}
    return stage.model_copy(update={"objectives": left})


def reads_pixels(stage: StageConfig) -> bool:
    """Whether a stage runs the image tower at every step."""
    texts_only = set(stage.train) <= {"text", "text_projection", "objectives"} and all(
        options.get("type", name) == "text_attributes" for name, options in stage.objectives.items()
    )
    return stage.images == "pixels" and not texts_only


def _slower(stage: StageConfig, plan: RetrainPlan, preset: Preset, n_regions: int) -> StageConfig:
    batch = preset.batch_of(stage.batch, n_regions)
    passes = plan.passes if reads_pixels(stage) else plan.cheap_passes
    steps = max(plan.least_steps, math.ceil(passes * n_regions / (batch * stage.accumulate)))
    steps = min(steps, max(plan.least_steps, math.ceil(stage.steps * stage.batch / batch)))
    rate = stage.learning_rate * plan.rate * math.sqrt(batch / stage.batch)
    changes: dict[str, Any] = {"batch": batch, "steps": steps, "learning_rate": float(f"{rate:.3g}")}
    changes |= {"warmup": max(1, min(stage.warmup, steps // 5)), "precision": preset.precision, "workers": preset.workers}
    return stage.model_copy(update=changes)


def _with_heads(stages: list[StageConfig], plan: RetrainPlan) -> Iterator[StageConfig]:
    """Each stage, and before the first that has an objective with layers of its own, a stage that trains only these."""
    seen: set[str] = set()
    for stage in stages:
        fresh = {k: v for k, v in stage.objectives.items() if v.get("type", k) in OWN_LAYERS and k not in seen}
        if fresh and plan.heads_steps and len(stage.train) > 1:
            kinds = {v.get("type", k) for k, v in fresh.items()}
            yield stage.model_copy(
                update={
                    "name": f"{stage.name}_heads",
                    "objectives": fresh,
                    "train": {"objectives": 1.0},
                    "learning_rate": float(f"{stage.learning_rate / plan.rate:.3g}"),
                    "steps": plan.heads_steps,
                    "warmup": max(1, plan.heads_steps // 10),
                    "images": "cached" if kinds == {"attributes"} else stage.images,
                    "validate_every": None,
                    "patience": None,
                }
            )
        seen |= set(fresh)
        yield stage
