"""How much an answer hangs on the wording: the ensemble of prompts drawn again and again from its templates and descriptors.

A verdict that turns when other, equally good sentences ask the question is no verdict. The spread over such draws is told with
every score, and beyond a limit from validation patients the answer is withheld.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from medvl.evaluation.calibration import Calibration
from medvl.heads.ways import Towers

DRAWS = 100
LARGEST_SHARE = 0.05
_CHUNK = 16


@dataclass(frozen=True)
class Spread:
    """Of a calibrated probability over drawn ensembles.

    Args:
        sd: standard deviation.
        low, high: 2.5 and 97.5 % quantiles.
        turned: share of draws on the other side of the threshold than the whole ensemble.
    """

    sd: float
    low: float
    high: float
    turned: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {key: round(value, 4) for key, value in asdict(self).items()}


def spread_of(calibration: Calibration, margin: float, drawn: ArrayLike) -> Spread:
    """Spread of the probability of one answer over the margins (draws,) of drawn ensembles."""
    p = calibration.probability(drawn)
    here = float(calibration.probability(margin)) >= calibration.threshold
    low, high = np.quantile(p, [0.025, 0.975])
    return Spread(float(p.std()), float(low), float(high), float(((p >= calibration.threshold) != here).mean()))


def limit_of(calibration: Calibration, margins: NDArray[Any], drawn: NDArray[Any], share: float = LARGEST_SHARE) -> float:
    """The largest share of turned draws that a verdict may have, from margins (N,) and drawn (N, draws) of validation regions.

    Of the regions outside the undecided band, `share` at most turn more often than it.
    """
    p = calibration.probability(margins)
    decided = np.array([calibration.verdict(float(value)) != "undecided" for value in p], dtype=bool)
    if not decided.any():
        return 0.0
    turned = (calibration.probability(drawn) >= calibration.threshold) != (p >= calibration.threshold)[:, None]
    return float(np.quantile(turned.mean(1)[decided], 1 - share, method="higher"))


class Paraphrases:
    """Margins of drawn prompt ensembles: templates and descriptors are drawn with replacement, each by itself.

    The same draws for every region and finding of the same numbers of templates and descriptors, so answers can be compared.

    Args:
        towers: whose prompts; they are embedded at first use.
        draws: B.
        seed: of the draws.

    Source: Owen 2007, "The pigeonhole bootstrap": rows and columns of a crossed design are drawn independently.
    """

    def __init__(self, towers: Towers, draws: int = DRAWS, seed: int = 0) -> None:
        self.towers, self.draws, self.seed = towers, draws, seed
        self._groups: dict[tuple[str, tuple[str, ...]], list[_Group]] = {}

    def margins(self, region: str, answers: Tensor, keys: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Finding to (N, draws) margins of answers (N, E), for those of `keys` that are asked in more than one wording."""
        place = (region, tuple(keys))
        if place not in self._groups:
            self._groups[place] = self._grouped(region, keys)
        null = self.towers.prior.get(region)
        rows = answers if null is None else answers - null
        out: dict[str, NDArray[np.float64]] = {}
        for group in self._groups[place]:
            drawn = group.margins(rows).double().numpy()
            out |= {key: drawn[:, i] for i, key in enumerate(group.keys)}
        return out

    def _grouped(self, region: str, keys: Sequence[str]) -> list[_Group]:
        shapes: dict[tuple[int, int, int], list[str]] = {}
        for key in keys:
            present, absent = self.towers.vectors[f"{key}@{region}"]
            if present.shape[0] * present.shape[1] > 1 or absent.shape[0] * absent.shape[1] > 1:
                shapes.setdefault((present.shape[0], present.shape[1], absent.shape[1]), []).append(key)
        return [self._group(alike, shape, region) for shape, alike in shapes.items()]

    def _group(self, keys: list[str], shape: tuple[int, int, int], region: str) -> _Group:
        rng = np.random.default_rng([self.seed, *shape])
        frames = _drawn(rng, self.draws, shape[0])
        vectors = self.towers.vectors
        sides = []
        for side, n in enumerate(shape[1:]):
            weights = frames[:, :, None] * _drawn(rng, self.draws, n)[:, None]
            sides.append(_Side(torch.stack([vectors[f"{key}@{region}"][side] for key in keys]), weights.flatten(1)))
        return _Group(keys, sides[0], sides[1])


def _drawn(rng: np.random.Generator, draws: int, n: int) -> Tensor:
    """(draws, n) float32 shares of n things drawn n times with replacement."""
    return torch.from_numpy(rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float32) / n)


class _Side:
    """The present or the absent prompts (G, T, D, E) of G findings, and their weights (B, T D) in each draw."""

    def __init__(self, prompts: Tensor, weights: Tensor) -> None:
        self.prompts, self.weights = prompts.flatten(1, 2), weights
        parts = [torch.einsum("bp,gpe->gbe", weights, part).norm(dim=-1) for part in self.prompts.split(_CHUNK)]
        self.lengths = torch.cat(parts).clamp_min(1e-6)

    def cosines(self, rows: Tensor) -> Tensor:
        """(N, G, B) cosines of rows (N, E) with each draw's mean prompt."""
        similar = torch.einsum("gpe,ne->ngp", self.prompts, rows)
        return similar @ self.weights.T / self.lengths


@dataclass(frozen=True, eq=False)
class _Group:
    """Findings with the same numbers of templates and descriptors."""

    keys: list[str]
    present: _Side
    absent: _Side

    def margins(self, rows: Tensor) -> Tensor:
        """(N, G, B) margins of rows (N, E)."""
        return self.present.cosines(rows) - self.absent.cosines(rows)
