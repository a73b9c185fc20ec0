"""A recipe: one YAML file that says all of a run. An unknown key is an error that names the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medvl.data.targets import KindTargets
from medvl.errors import ConfigError, did_you_mean
from medvl.imaging.preprocess import Contract
from medvl.models.config import LocaliserConfig
from medvl.models.system import PARTS, SystemConfig
from medvl.objectives.registry import check_objective

ReportText = Literal["free", "templates"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CohortConfig(_Strict):
    """Phantom patients by number: training, validation and test ranges never overlap."""

    seed: int = 11
    n_train: int = 6000
    n_validation: int = 500
    n_test: int = 600
    start_validation: int = 100_000
    start_test: int = 200_000
    jitter_mm: float = 9.0
    phases: int = 1


class StageConfig(_Strict):
    """One stage: what is trained, by which objectives, on what, for how long.

    Args:
        name: of its folder; also what other stages' checkpoints are told apart by.
        objectives: name to options; an objective keeps its parameters over stages under its name. `type` says which it is when
            that is not the name itself.
        train: part to its factor on the learning rate: image, pool, image_projection, text, text_projection, streams,
            reconstruct, objectives. A part that is not named stays as it is.
        steps: 0 leaves the stage out.
        batch: samples a step over all ranks; statements: single sentences drawn beside them, of each kind in the batch.
        images: ``pixels``, or ``cached`` pooled features, computed once before the stage.
        texts: ``live``, or for a text tower that does not move, ``cached`` states of `text_versions` sentence orders of each
            report.
        kinds: every kind in each batch, or in ``turns``, a kind's share being that of its samples.
        phase: each patient's ``main`` phase or a ``random`` one of those there are.
        vary: shift, gain, offset and noise at random.
        report_text: reports as they are written, ``free``, or their labels as sentences of one grammar, ``templates``.
        drop_sentences: probability that a sentence of a report is left out; visible_only: leave out what no image can show.
        strip_numbers: clean reports as the RenalCLIP release does, which damages sizes; see `medvl.text.faithful`.
        still_statistics: batch norm keeps its running statistics.
        pieces: of the gradient cache; accumulate: batches a step.
    """

    name: str
    steps: int = Field(ge=0)
    batch: int = Field(ge=1)
    learning_rate: float
    objectives: dict[str, dict[str, Any]]
    train: dict[str, float]
    weight_decay: float = 0.02
    warmup: int = 100
    clip_norm: float | None = 1.0
    statements: int = 0
    images: Literal["pixels", "cached"] = "pixels"
    texts: Literal["live", "cached"] = "live"
    text_versions: int = 5
    kinds: Literal["together", "turns"] = "together"
    phase: Literal["main", "random"] = "main"
    vary: bool = True
    report_text: ReportText = "free"
    drop_sentences: float = 0.0
    visible_only: bool = False
    strip_numbers: bool = False
    still_statistics: bool = False
    precision: Literal["bf16", "fp32"] = "bf16"
    pieces: int = 1
    accumulate: int = 1
    workers: int = 0
    validate_every: int | None = None
    patience: int | None = None

    @model_validator(mode="after")
    def _known(self) -> StageConfig:
        unknown = [part for part in self.train if part not in PARTS]
        if unknown:
            raise ValueError(f"stage {self.name} trains {unknown[0]}; known parts: {', '.join(PARTS)}")
        for name, options in self.objectives.items():
            check_objective(name, options)
        return self


class LocaliseConfig(_Strict):
    """Training of the localiser; `scans` whole phantoms are painted for it."""

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.02
    warmup: int = 30
    scans: int = 200


class Recipe(_Strict):
    """Everything that `medvl train` needs.

    Args:
        name: of the recipe and its bundle; summary: one line for the model card.
        cohort: which phantoms, unless a table of studies is given; kinds: what regions may show; contract: how they are cut.
        model: shapes of all parts; stages: what is trained, in order.
        localise: training of the localiser, or `localiser_from`: a bundle whose localiser is taken; neither: no bundle is made.
        statements: most single sentences kept a kind; survival_penalty: of the ridge Cox model; endpoint: what it predicts.
        findings: list of questions; workers: processes that build cohorts.
        data_from: command that gives the run its patients; without a table, `medvl train` then refuses and names it.
    """

    name: str
    summary: str
    seed: int = 0
    cohort: CohortConfig = CohortConfig()
    contract: dict[str, Any]
    kinds: dict[str, KindTargets]
    model: SystemConfig = SystemConfig()
    stages: tuple[StageConfig, ...]
    localiser: LocaliserConfig = LocaliserConfig()
    localise: LocaliseConfig | None = None
    localiser_from: str | None = None
    statements: int = 12_000
    survival_penalty: float = 0.02
    endpoint: str = "overall survival (phantom)"
    findings: str = "phantom"
    workers: int = 2
    data_from: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if set(self.model.image.kinds) != set(self.kinds):
            raise ValueError(f"model.image.kinds {list(self.model.image.kinds)} must be the kinds {list(self.kinds)}")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"two stages are called {next(n for n in names if names.count(n) > 1)}")
        return self

    @property
    def input_contract(self) -> Contract:
        """The preprocessing contract, validated."""
        return Contract.from_json(self.contract)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file with `a.b=value` overrides applied.

    Raises:
        ConfigError: missing or malformed file, unknown key, or a value of the wrong type.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no recipe at {path}; give a YAML file or the name of a built-in recipe") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values, found {type(values).__name__}")
    for override in overrides:
        _override(values, override)
    _refuse_placeholders(values, path)
    try:
        recipe = Recipe.model_validate(values)
        recipe.input_contract  # noqa: B018 - raises when the contract is wrong
    except ValidationError as error:
        raise ConfigError(_explain(error, path)) from error
    except (TypeError, ValueError) as error:  # of a contract whose values are no numbers
        raise ConfigError(f"{path}: contract: {error}") from error
    return recipe


def changed(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """The recipe with `a.b=value` overrides applied.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type.
    """
    if not overrides:
        return recipe
    values = dict(as_plain(recipe))
    for override in overrides:
        _override(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, Path("--set"))) from error


def _refuse_placeholders(node: Any, path: Path, place: str = "") -> None:
    """Stop at a `<value>` that the recipe leaves to whoever runs it."""
    if isinstance(node, str) and node.startswith("<") and node.endswith(">"):
        raise ConfigError(f"{path}: {place} is left to you; give --set {place}=..., a {node[1:-1]}")
    named = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in named:
        _refuse_placeholders(value, path, f"{place}.{key}" if place else str(key))


def _override(values: dict[str, Any], text: str) -> None:
    key, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"--set needs key=value, got {text!r}")
    *parents, last = key.split(".")
    node: Any = values
    for name in parents:
        node = _named(node, name, text) if isinstance(node, list) else node.setdefault(name, {})
        if not isinstance(node, dict | list):
            raise ConfigError(f"--set {text}: {name} is a value, not a group of keys")
    if isinstance(node, list):
        raise ConfigError(f"--set {text}: name an entry of the list and one of its keys")
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value is not valid YAML") from error


def _named(entries: list[Any], name: str, text: str) -> Any:
    """The entry of a list of groups whose `name` is `name`, such as a stage."""
    for entry in entries:
        if isinstance(entry, dict) and entry.get("name") == name:
            return entry
    known = [str(e.get("name")) for e in entries if isinstance(e, dict)]
    raise ConfigError(f"--set {text}: nothing is called {name}; {did_you_mean(name, known)}")


def _explain(error: ValidationError, path: Path) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), sorted(_keys(Recipe)), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{path}: unknown key {place}{hint}"
    return f"{path}: {place}: {first['msg']} (found {first.get('input')!r})"


def _keys(model: type[BaseModel]) -> set[str]:
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found.add(name)
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found |= _keys(inner)
    return found


def as_plain(recipe: Recipe) -> Mapping[str, Any]:
    """The resolved recipe as plain values, for the record of a run."""
    return recipe.model_dump(mode="json")
