"""A protocol: one YAML file that says what is measured, on whom, with which labels, and how sure one must be to say it.

It is data and carries a hash, so that two results with one protocol hash were asked the same thing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from medvl.errors import ConfigError, did_you_mean
from medvl.survival.endpoints import MIN_EVENTS


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Wanted(_Strict):
    """What a cohort must be.

    Args:
        way: ``scans`` through the localiser, ``crops`` around known centres, or ``any``.
        columns: what must be known of patients, such as time_days; a column that is not there stops the evaluation.
    """

    way: Literal["scans", "crops", "any"] = "any"
    columns: tuple[str, ...] = ()


class Minimum(_Strict):
    """Counts below which a number is a stated NA.

    Args:
        patients: of the cohort; present, absent: of a finding; events: of an endpoint.
        subgroup: present, and absent, of a finding in a subgroup.
    """

    patients: int = Field(default=20, ge=2)
    present: int = Field(default=5, ge=1)
    absent: int = Field(default=5, ge=1)
    events: int = Field(default=MIN_EVENTS, ge=1)
    subgroup: int = Field(default=5, ge=1)


class ZeroShot(_Strict):
    """Findings asked without training on them: ranking, verdicts at the bundle's thresholds, calibration, decisions.

    Args:
        labels: ``truth`` known from elsewhere, or what the ``report`` says.
        findings: keys; none for all that the bundle is calibrated for.
        bins: of the reliability plot.
    """

    type: Literal["zero_shot"]
    labels: Literal["truth", "report"]
    findings: tuple[str, ...] = ()
    bins: int = Field(default=10, ge=2)


class Retrieval(_Strict):
    """Scan to report and back, by patient, over shared regions, in galleries of a stated size.

    Args:
        gallery: patients in a gallery; when there are fewer, all of them.
        ranks: k of recall at k.
    """

    type: Literal["retrieval"]
    gallery: int = Field(default=200, ge=2)
    ranks: tuple[int, ...] = (1, 5, 10)


class Survival(_Strict):
    """One endpoint: the bundle's risk against what happened.

    Args:
        name: of the task in results, such as OS; needed where a protocol asks for several endpoints.
        endpoint: its name; the bundle's survival model must be for it.
        time, event: columns of patients.
        horizons_days: at which calibration, AUC and Brier score are given.
        beside: columns of patients that are risks themselves, such as age_years, for comparison.
    """

    type: Literal["survival"]
    name: str = Field(default="", pattern=r"^[\w-]*$")
    endpoint: str
    time: str = "time_days"
    event: str = "event"
    horizons_days: tuple[float, ...] = (365.0, 1095.0, 1825.0)
    beside: tuple[str, ...] = ()


class Grounding(_Strict):
    """The pointing game and the deletion test, on an embedded cohort that compared maps with known lesions."""

    type: Literal["grounding"]


def key_of(task: BaseModel) -> str:
    """What a task is called in results: its name, else its type."""
    return str(getattr(task, "name", "") or task.type)  # type: ignore[attr-defined]


Task = Annotated[ZeroShot | Retrieval | Survival | Grounding, Field(discriminator="type")]


class Subgroup(_Strict):
    """Patients split by a column.

    Args:
        column: of patients.
        label: what a person reads; the column's name if not given.
        bins: rising inner edges for numbers: [50, 70] gives below 50, 50 to below 70, and 70 and above. None: one group a value.
    """

    column: str
    label: str = ""
    bins: tuple[float, ...] | None = None

    @field_validator("bins")
    @classmethod
    def _rising(cls, bins: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if bins is not None and (not bins or any(b <= a for a, b in pairwise(bins))):
            raise ValueError(f"bins must rise and hold at least one edge, got {list(bins)}")
        return bins


class LeakLimits(_Strict):
    """What counts as the same.

    Args:
        image_cosine: of standardised image features.
        text_overlap: share of a report's uncommon phrases that stand in another one.
        text_phrases: how many uncommon phrases a report needs to be judged.
    """

    image_cosine: float = Field(default=0.99, gt=0, le=1)
    text_overlap: float = Field(default=0.8, gt=0, le=1)
    text_phrases: int = Field(default=8, ge=1)


class Protocol(_Strict):
    """A named evaluation.

    Args:
        name, summary: for people, like the names of tasks.
        split: of the embedded cohort; another one is refused.
        cohort: what it must be; tasks: what is measured; subgroups: on whom besides everybody.
        minimum: counts below which a number is NA; leaks: what counts as the same case.
        draws: of the bootstrap over patients, for intervals of 95 %; seed: of these draws and of galleries.
    """

    name: str
    summary: str
    split: str = "test"
    cohort: Wanted = Wanted()
    tasks: tuple[Task, ...] = Field(min_length=1)
    subgroups: tuple[Subgroup, ...] = ()
    minimum: Minimum = Minimum()
    leaks: LeakLimits = LeakLimits()
    draws: int = Field(default=1000, ge=100)
    seed: int = 0

    @model_validator(mode="after")
    def _once(self) -> Protocol:
        columns: list[str] = [s.column for s in self.subgroups]
        keys = [key_of(t) for t in self.tasks]
        events = [f"event {t.event}" for t in self.tasks if isinstance(t, Survival)]
        for names in (keys, events, columns):
            twice = next((n for n in names if names.count(n) > 1), None)
            if twice:
                hint = "give each endpoint a name of its own" if twice == "survival" else "name it once"
                raise ValueError(f"{twice} stands twice; {hint}")
        return self

    @property
    def hash(self) -> str:
        """SHA-256 over every value of it but names and summary."""
        return hashed(self.model_dump(mode="json", exclude={"name": True, "summary": True, "tasks": {"__all__": {"name"}}}))


def hashed(values: Any) -> str:
    """SHA-256 of plain values, independent of the order of keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load_protocol(source: Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Protocol:
    """The protocol in a YAML file or in plain values, with some top keys replaced.

    Raises:
        ConfigError: missing or malformed file, unknown key (the nearest is named), or a value of the wrong type.
    """
    name = str(source) if isinstance(source, Path) else "protocol"
    try:
        values = yaml.safe_load(source.read_text(encoding="utf-8")) if isinstance(source, Path) else dict(source)
    except OSError as error:
        raise ConfigError(
            f"no protocol at {source} ({type(error).__name__}); medvl evaluate --protocol list names them"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{name} must hold keys and values, found {type(values).__name__}")
    try:
        return Protocol.model_validate({**values, **(overrides or {})})
    except ValidationError as error:
        raise ConfigError(f"{name}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {place}; {did_you_mean(str(first['loc'][-1]), _keys(first['loc']))}"
    if first["type"] == "union_tag_invalid":
        kinds = [kind.model_fields["type"].annotation.__args__[0] for kind in TASKS]  # type: ignore[union-attr]
        found = str(first["input"].get("type"))
        return f"{place}: no task of type {found}; {did_you_mean(found, kinds)}"
    return f"{place}: {first['msg']} (found {first.get('input')!r})"


TASKS: tuple[type[_Strict], ...] = (ZeroShot, Retrieval, Survival, Grounding)


def _keys(place: tuple[int | str, ...]) -> list[str]:
    """Names that may stand where an unknown key was found."""
    model: type[_Strict] = Protocol
    kinds: dict[str, type[_Strict]] = {str(kind.model_fields["type"].annotation.__args__[0]): kind for kind in TASKS}  # type: ignore[union-attr]
    groups: dict[str, type[_Strict]] = {"cohort": Wanted, "minimum": Minimum, "leaks": LeakLimits, "subgroups": Subgroup, **kinds}
    for part in place[:-1]:
        model = groups.get(str(part), model)
    return list(model.model_fields)
