"""The rules of a gate: one YAML file that says how much worse a new bundle may be, in what, and how sure one must be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medvl.errors import ConfigError, did_you_mean
from medvl.evaluation.protocol import LeakLimits, Minimum, Protocol, Subgroup, ZeroShot, hashed

Inconclusive = Literal["estimate", "fail", "tell"]
Margin = Field(gt=0, lt=1)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Primary(_Strict):
    """Mean AUROC over findings.

    Args:
        margin: it must be shown not to be lower by this.
        improvement: asked besides: ``none``, the ``estimate`` not below that of the old bundle, or ``significant``ly above it.
    """

    margin: float = Margin
    improvement: Literal["none", "estimate", "significant"] = "none"


class Guard(_Strict):
    """What may not get worse by a margin.

    Args:
        inconclusive: where the interval holds the margin: ``estimate`` fails if the difference itself is beyond it, ``fail``
            always, ``tell`` never.
    """

    inconclusive: Inconclusive = "estimate"


class Findings(Guard):
    """AUROC of each finding.

    Args:
        margin: of those without one of their own in `margins`; may_go: findings that the new bundle need not answer.
    """

    margin: float = Margin
    margins: Mapping[str, float] = Field(default_factory=dict)
    may_go: tuple[str, ...] = ()


class Retrieving(Guard):
    """Mean reciprocal rank both ways, in galleries of `gallery` patients (all where there are fewer)."""

    margin: float = Margin
    gallery: int = Field(default=200, ge=2)


class Survived(Guard):
    """Harrell's C of the endpoint that both bundles predict; `time` and `event` are columns of patients."""

    margin: float = Margin
    time: str = "time_days"
    event: str = "event"


class Calibrated(Guard):
    """Margins of the means over findings of Brier score, calibration error and the gap between mean probability and prevalence.

    Args:
        brier, ece, in_the_large: the margins; bins: of the calibration error.
        refreshed: fail where scores have changed and every calibration is that of the old bundle.
    """

    brier: float = Margin
    ece: float = Margin
    in_the_large: float = Margin
    bins: int = Field(default=10, ge=2)
    refreshed: bool = True


class Answered(Guard):
    """Margins of the shares of regions read and of answers left undecided, and of balanced accuracy."""

    read: float = Margin
    undecided: float = Margin
    accuracy: float = Margin


class Groups(_Strict):
    """Parts of the cohort that may not be harmed: shown to be worse by more than the margin."""

    margin: float = Margin
    columns: tuple[Subgroup, ...] = ()


class Least(Minimum):
    """Counts below which nothing is concluded.

    Args:
        shared: of all regions, the share that both embedded cohorts must hold; and of those that the old bundle answers for a
            finding, the share that the new one must answer.
    """

    shared: float = Field(default=0.95, gt=0, le=1)


class GatePolicy(_Strict):
    """A named gate.

    Args:
        name, summary: for people; split: of the embedded cohorts, another one is refused.
        labels: ``truth``, ``report``, or ``auto``: the truth where the cohort knows any.
        level: of intervals, two-sided; draws: of the bootstrap over patients; seed: of these.
        primary, findings, retrieval, survival, calibration, answers, subgroups: the checks; minimum, leaks: what they rest on.
    """

    name: str
    summary: str
    split: str = "test"
    labels: Literal["truth", "report", "auto"] = "auto"
    level: float = Field(default=0.95, ge=0.5, lt=1)
    primary: Primary
    findings: Findings
    retrieval: Retrieving
    survival: Survived
    calibration: Calibrated
    answers: Answered
    subgroups: Groups
    minimum: Least = Least()
    leaks: LeakLimits = LeakLimits()
    draws: int = Field(default=2000, ge=100)
    seed: int = 0

    @property
    def hash(self) -> str:
        """SHA-256 over every value of it but name and summary."""
        return hashed(self.model_dump(mode="json", exclude={"name", "summary"}))

    def protocol(self, labels: Literal["truth", "report"]) -> Protocol:
        """The protocol under which both bundles answer."""
        task = ZeroShot(type="zero_shot", labels=labels, bins=self.calibration.bins)
        return Protocol(
            name=self.name,
            summary=self.summary,
            split=self.split,
            tasks=(task,),
            minimum=Minimum.model_validate(self.minimum.model_dump(exclude={"shared"})),
            draws=self.draws,
            seed=self.seed,
        )


def load_policy(source: Path | Mapping[str, Any]) -> GatePolicy:
    """The policy in a YAML file or in plain values.

    Raises:
        ConfigError: missing or malformed file, unknown key (the nearest is named), or a value of the wrong type.
    """
    name = str(source) if isinstance(source, Path) else "policy"
    try:
        values = yaml.safe_load(source.read_text(encoding="utf-8")) if isinstance(source, Path) else dict(source)
    except OSError as error:
        raise ConfigError(f"no policy at {source} ({type(error).__name__}); medvl gate --policy list names them") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{name} must hold keys and values, found {type(values).__name__}")
    try:
        return GatePolicy.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{name}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    found = error.errors()
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])  # a misspelt key is missing too
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{place}: {first['msg']} (found {first.get('input')!r})"
    model: type[BaseModel] = GatePolicy
    for part in first["loc"][:-1]:
        kind = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        model = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else Subgroup
    names = list(model.model_fields)
    return f"unknown key {place}; {did_you_mean(str(first['loc'][-1]), names)}"
