"""What a list of downstream tasks may say: RenalCLIP's ten tasks, or others of the same types, in one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medvl.errors import ConfigError
from medvl.evaluation.fractions import FRACTIONS, SEEDS
from medvl.evaluation.protocol import LeakLimits, hashed
from medvl.survival.endpoints import Endpoint, Value

Baseline = Literal["clinical", "size", "second"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Graded(_Strict):
    """Classes of a lesion, in order (`ordinal`) or not.

    Args:
        column: of the table of labels; classes: its values. Any other value is unknown, and counted.
        where: columns of the table and the values a row must have to be asked.
        not_beside: baselines that the label is made of.
    """

    type: Literal["ordinal", "classes"]
    name: str
    label: str = ""
    column: str
    classes: tuple[str, ...] = Field(min_length=2)
    where: dict[str, tuple[Value, ...]] = {}
    not_beside: tuple[Baseline, ...] = ()


class Timed(Endpoint):
    """One endpoint of a patient; lesions of one patient are read together."""

    type: Literal["survival"]
    label: str = ""
    where: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    not_beside: tuple[Baseline, ...] = ()


Task = Annotated[Graded | Timed, Field(discriminator="type")]


class Clinical(_Strict):
    """Columns of the clinical baseline."""

    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()


class Least(_Strict):
    """Rows of a class in training and in test, and events of an endpoint in training and in test."""

    training: int = Field(default=10, ge=1)
    test: int = Field(default=10, ge=2)
    events: int = Field(default=10, ge=1)


class TenTasks(_Strict):
    """A protocol of downstream tasks on one cohort of lesions; `configs/protocols/ten-tasks.yaml` says what each key is."""

    fits: Literal["heads"] = "heads"
    name: str
    summary: str = ""
    kind: str = "kidney"
    features: Literal["embedding", "pooled"] = "embedding"
    tasks: tuple[Task, ...] = Field(min_length=1)
    clinical: Clinical = Clinical()
    size: str | None = None
    phases: tuple[str, ...] = ()
    minimum: Least = Least()
    leaks: LeakLimits = LeakLimits()
    fractions: tuple[float, ...] = FRACTIONS
    seeds: tuple[int, ...] = Field(SEEDS, min_length=1)
    draws: int = Field(1000, ge=100)

    @model_validator(mode="after")
    def _apart(self) -> TenTasks:
        names = [task.name for task in self.tasks]
        ends = [(task.event, task.happened) for task in self.tasks if isinstance(task, Timed)]
        if len(set(names)) < len(names) or len(set(ends)) < len(ends):
            raise ValueError(f"tasks {names} must have names of their own, and endpoints events of their own, found {ends}")
        return self

    @property
    def hash(self) -> str:
        """SHA-256 over every value of it but name and summary."""
        return hashed(self.model_dump(mode="json", exclude={"name", "summary"}))


def fits_heads(path: Path) -> bool:
    """Whether a YAML file is a protocol of downstream tasks; one that cannot be read is not."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(values, dict) and values.get("fits") == "heads"


def load_ten_tasks(path: Path, overrides: Mapping[str, Any] | None = None) -> TenTasks:
    """The protocol in a YAML file, with some top keys replaced.

    Raises:
        ConfigError: no such file, not YAML, or a key or value that does not belong.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TenTasks.model_validate({**values, **(overrides or {})} if isinstance(values, dict) else values)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path} is not a list of downstream tasks: {error}") from error
