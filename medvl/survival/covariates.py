"""Clinical covariates of a table as features: everything learned from training rows, nothing dropped, what is missing counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvl.errors import ConfigError

Array = NDArray[np.float64]
UNKNOWN, OTHER = "unknown", "other"


@dataclass(frozen=True)
class Numeric:
    """A numeric column: median, mean and standard deviation of training, and whether any value was missing there."""

    name: str
    median: float
    mean: float
    scale: float
    flagged: bool


@dataclass(frozen=True)
class Categorical:
    """A categorical column: levels with a feature each, the commonest (which has none), and levels pooled into "other"."""

    name: str
    reference: str
    levels: tuple[str, ...]
    pooled: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Encoded:
    """Features of a table's rows.

    Args:
        x: (N, P) float64, never NaN.
        names: of the columns of x.
        missing: by covariate, how many rows had no value.
        unseen: by covariate, values that training did not have, which count as unknown, with how many rows.
    """

    x: Array
    names: tuple[str, ...]
    missing: Mapping[str, int]
    unseen: Mapping[str, Mapping[str, int]]

    def describe(self) -> str:
        """What was filled in, in one sentence."""
        lost = [f"{k} {n}" for k, n in self.missing.items() if n]
        new = [f"{k} {level} {n}" for k, levels in self.unseen.items() for level, n in levels.items()]
        return f"{len(self.x)} rows; missing: {', '.join(lost) or 'nothing'}; not seen in training: {', '.join(new) or 'nothing'}"


@dataclass(frozen=True)
class Covariates:
    """How rows become features.

    Args:
        numeric: standardised; a missing value becomes the training median and, where training had missing ones too, sets a flag.
        categorical: one feature a level but the commonest; missing and unseen values are the level "unknown".
        n: training rows.
    """

    numeric: tuple[Numeric, ...]
    categorical: tuple[Categorical, ...]
    n: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        flat = [n for c in self.numeric for n in ([c.name, f"{c.name} missing"] if c.flagged else [c.name])]
        return tuple(flat + [f"{c.name}={level}" for c in self.categorical for level in c.levels])

    def encode(self, table: pd.DataFrame) -> Encoded:
        """Features of any rows.

        Raises:
            ConfigError: a column is not there, or a numeric one holds text.
        """
        names = [c.name for c in self.numeric] + [c.name for c in self.categorical]
        lost = [name for name in names if name not in table]
        if lost:
            raise ConfigError(f"no covariates {lost} in a table of {sorted(map(str, table.columns))}")
        columns: list[Array] = []
        missing: dict[str, int] = {}
        unseen: dict[str, dict[str, int]] = {}
        for c in self.numeric:
            values = _numbers(table, c.name)
            empty = np.isnan(values)
            missing[c.name] = int(empty.sum())
            columns.append((np.where(empty, c.median, values) - c.mean) / c.scale)
            columns += [empty.astype(np.float64)] if c.flagged else []
        for d in self.categorical:
            levels = _levels(table, d.name)
            missing[d.name] = int((levels == UNKNOWN).sum())
            new = levels[~np.isin(levels, [d.reference, *d.levels, *d.pooled, UNKNOWN])]
            unseen[d.name] = {str(k): int(n) for k, n in zip(*np.unique(new, return_counts=True), strict=True)}
            found = np.where(np.isin(levels, d.pooled), OTHER, np.where(np.isin(levels, new), UNKNOWN, levels))
            columns += [(found == level).astype(np.float64) for level in d.levels]
        x = np.stack(columns, 1) if columns else np.zeros((len(table), 0))
        return Encoded(x, self.names, missing, {k: v for k, v in unseen.items() if v})

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"numeric": [asdict(c) for c in self.numeric], "categorical": [asdict(c) for c in self.categorical], "n": self.n}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Covariates:
        """From `to_json`."""
        categorical = [
            Categorical(c["name"], c["reference"], tuple(c["levels"]), tuple(c["pooled"])) for c in values["categorical"]
        ]
        return cls(tuple(Numeric(**c) for c in values["numeric"]), tuple(categorical), int(values["n"]))


def fit_covariates(
    training: pd.DataFrame, *, numeric: Sequence[str] = (), categorical: Sequence[str] = (), rare: int = 10
) -> Covariates:
    """Learn medians, scales and levels from training rows only.

    Args:
        training: one row a patient.
        numeric: columns of numbers.
        categorical: columns of levels, text or numbers.
        rare: levels of fewer rows are pooled into "other"; a missing value is a level of its own, "unknown", however rare.

    Raises:
        ConfigError: a column is missing, given twice, holds text though numeric, or has no value at all.
    """
    names = [*numeric, *categorical]
    lost, twice = [c for c in names if c not in training], sorted({c for c in names if names.count(c) > 1})
    if lost or twice or not len(training):
        raise ConfigError(
            f"{len(training)} rows: columns {lost} are missing, {twice} are given twice; known: {list(training.columns)}"
        )
    return Covariates(
        tuple(_fit_numeric(training, c) for c in numeric),
        tuple(_fit_levels(training, c, rare) for c in categorical),
        len(training),
    )


def _fit_numeric(table: pd.DataFrame, name: str) -> Numeric:
    values = _numbers(table, name)
    known = values[~np.isnan(values)]
    if not len(known):
        raise ConfigError(f"covariate {name} has no value in training; leave it out")
    median = float(np.median(known))
    filled = np.where(np.isnan(values), median, values)
    spread = float(filled.std())
    scale = spread if spread > 1e-12 * max(1.0, abs(median)) else 1.0
    return Numeric(name, median, float(filled.mean()), scale, len(known) < len(values))


def _fit_levels(table: pd.DataFrame, name: str, rare: int) -> Categorical:
    found, counts = np.unique(_levels(table, name), return_counts=True)
    size = {str(k): int(n) for k, n in zip(found, counts, strict=True)}
    unknown = size.pop(UNKNOWN, 0)
    if not size:
        raise ConfigError(f"covariate {name} has no value in training; leave it out")
    reference = max(size, key=lambda k: (size[k], k))
    pooled = tuple(k for k, n in size.items() if n < rare and k != reference)
    levels = [k for k in size if k not in pooled and k != reference]
    return Categorical(name, reference, tuple(levels + [OTHER] * bool(pooled) + [UNKNOWN] * bool(unknown)), pooled)


def _numbers(table: pd.DataFrame, name: str) -> Array:
    try:
        values = pd.to_numeric(table[name]).to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"covariate {name} is numeric, but {error}; declare it categorical, or clean it") from error
    return np.where(np.isfinite(values), values, np.nan)


def _levels(table: pd.DataFrame, name: str) -> NDArray[np.str_]:
    """Values as text; whole numbers without a point, so that 1 and 1.0 are one level, and what is missing as "unknown"."""
    return np.array([UNKNOWN if pd.isna(v) else _text(v) for v in table[name]], dtype=np.str_)


def _text(value: object) -> str:
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return (str(int(value)) if whole else str(value).strip()) or UNKNOWN  # type: ignore[call-overload]
