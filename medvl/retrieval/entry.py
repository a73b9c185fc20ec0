"""What an index holds of one case: whose it is, what is known of it, where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medvl.errors import ConfigError

FIELDS = ("image", "report")
TEXTS = ("id", "patient", "study", "region", "side", "kind", "phase", "sex", "cohort", "split", "source_sha256", "report")
NUMBERS = ("age_years",)


@dataclass(frozen=True)
class Space:
    """What vectors must share to be comparable: the model and the input contract that made them.

    Args:
        model: name of the bundle; model_sha256: its hash; contract_hash: of its input contract; width: E of its embeddings.
    """

    model: str
    model_sha256: str
    contract_hash: str
    width: int

    def must_be(self, other: Space, what: str) -> None:
        """Refuse vectors of another space.

        Raises:
            ConfigError: the model's hash, the contract's hash or the width differ.
        """
        for name in ("model_sha256", "contract_hash", "width"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ConfigError(
                    f"the index holds {name} {str(mine)[:12]} (model {self.model}), {what} {str(theirs)[:12]} (model "
                    f"{other.model}); cosines between the two mean nothing: use the index's model, or build another index"
                )


@dataclass(frozen=True)
class Entry:
    """One region of one study. Empty text and None mean not known.

    Args:
        id: unique in an index, such as P3/kidney_left; patient, study: whose it is.
        region: kidney_left; side: left, right or ""; kind: kidney.
        phase, sex, age_years, cohort, split: to filter by.
        findings: 1 present, 0 absent; what is not stated is left out.
        report: the region's text. source_sha256: of the images it was made from, to recognise the same scan.
        extra: anything else to filter by: text or numbers by name.
    """

    id: str
    patient: str = ""
    study: str = ""
    region: str = ""
    side: str = ""
    kind: str = ""
    phase: str = ""
    sex: str = ""
    age_years: float | None = None
    cohort: str = ""
    split: str = ""
    source_sha256: str = ""
    report: str = ""
    findings: Mapping[str, int] = field(default_factory=dict)
    extra: Mapping[str, str | float] = field(default_factory=dict)

    @property
    def text_sha256(self) -> str:
        """Hash of the report's words, whatever their case and spacing; "" without a report."""
        words = " ".join(self.report.lower().split())
        return hashlib.sha256(words.encode()).hexdigest() if words else ""


@dataclass(frozen=True)
class Hit:
    """One case found, and its cosine with the query."""

    score: float
    entry: Entry


@dataclass(frozen=True)
class Found:
    """What a search gives.

    Args:
        hits: best first; equal scores by id.
        n_cases: cases in the index with a vector to search; n_searched: those that passed the filter and the exclusions.
        n_exact: scored in full precision after the scan.
    """

    hits: tuple[Hit, ...]
    n_cases: int
    n_searched: int
    n_exact: int


def unit_rows(vectors: NDArray[np.floating], width: int, what: str) -> NDArray[np.float32]:
    """(N, E) float32 of unit length; rows of NaN become zeros, which stand for "none".

    Raises:
        ConfigError: another width, or a row that is zero, infinite or only partly NaN.
    """
    given = np.asarray(vectors, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] != width:
        raise ConfigError(f"{what} vectors are {given.shape}; the index takes (N, {width})")
    none = np.asarray(np.isnan(given).all(axis=1))
    lengths = np.linalg.norm(np.where(none[:, None], 1.0, given), axis=1)
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths < 1e-12))
    if len(bad):
        raise ConfigError(
            f"{what} vector {int(bad[0])} has no direction (length {lengths[bad[0]]}); give NaN where there is none"
        )
    return np.where(none[:, None], 0.0, given / lengths[:, None]).astype(np.float32)
