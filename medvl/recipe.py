"""A recipe: one YAML file that says all of a run. An unknown key is an error that names the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from medvl.data.targets import KindTargets
from medvl.errors import ConfigError
from medvl.imaging.preprocess import Contract
from medvl.models.config import ClipConfig, LocaliserConfig


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


class StageConfig(_Strict):
    """One optimisation: steps, batch size, peak learning rate after a linear warm-up, then cosine to a hundredth."""

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.02
    warmup: int = 100


class AlignConfig(_Strict):
    """Alignment of the towers: first on frozen image features, then with both towers moving, then on statements."""

    frozen: StageConfig
    joint: StageConfig
    statements: StageConfig
    pairs_every: int = 6
    hard_weight: float = 0.5
    target_temperature: float = 0.1
    assertion_weight: float = 1.0
    n_statements: int = 160
    keep_attributes: float = 0.5
    encoder_rate: float = 0.2


class Recipe(_Strict):
    """Everything that `medvl train` needs."""

    name: str
    summary: str
    seed: int = 0
    cohort: CohortConfig = CohortConfig()
    contract: dict[str, Any]
    kinds: dict[str, KindTargets]
    model: ClipConfig = ClipConfig()
    localiser: LocaliserConfig = LocaliserConfig()
    localise: StageConfig
    localiser_scans: int = 300
    attributes: StageConfig
    mark_weight: float = 0.0
    text: StageConfig
    align: AlignConfig
    statements: int = 12_000
    survival_penalty: float = 0.02
    findings: str = "phantom"
    workers: int = 2

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
    try:
        recipe = Recipe.model_validate(values)
        recipe.input_contract  # noqa: B018 - raises when the contract is wrong
    except ValidationError as error:
        raise ConfigError(_explain(error, path)) from error
    except (TypeError, ValueError) as error:  # of a contract whose values are no numbers
        raise ConfigError(f"{path}: contract: {error}") from error
    return recipe


def _override(values: dict[str, Any], text: str) -> None:
    key, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"--set needs key=value, got {text!r}")
    *parents, last = key.split(".")
    node: Any = values
    for name in parents:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {text}: {name} is a value, not a group of keys")
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value is not valid YAML") from error


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
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= _keys(inner)
    return found


def as_plain(recipe: Recipe) -> Mapping[str, Any]:
    """The resolved recipe as plain values, for the record of a run."""
    return recipe.model_dump(mode="json")
