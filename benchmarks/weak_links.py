"""Three weak links, measured: wrong labels, rare findings, and batches of survivors.

Labels and imbalance: logistic heads with a ridge on the demo bundle's stored features of phantom kidneys (`medvl embed`), against
the phantoms' truth. Survival: simulated patients, whose hazards are known.

    python benchmarks/weak_links.py labels --embedded runs/embedded
    python benchmarks/weak_links.py rare --embedded runs/embedded
    python benchmarks/weak_links.py batches
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit

from medvl.evaluation.calibration import calibrate
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.metrics import auroc
from medvl.survival.cox import fit_cox
from medvl.survival.measures import harrell

Array = NDArray[np.float64]
FINDINGS = ("renal_mass", "renal_cyst", "renal_stone", "hydronephrosis")
SEEDS = 3
MOST = 3000  # absent kidneys in training


def main() -> None:
    """Measure one of them and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("labels", "rare", "batches"))
    parser.add_argument("--embedded", type=Path, default=Path("runs/embedded"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "batches":
        batches()
        return
    parts = {name: kidneys(Embedded.load(given.embedded / name)) for name in ("train", "validation", "test")}
    (labels if given.what == "labels" else rare)(parts)


def kidneys(embedded: Embedded) -> tuple[Array, dict[str, Array]]:
    """Features (N, P + 1), the last 1, and the truth of each finding, of the kidneys that could be read."""
    used = embedded.usable & (embedded.rows["kind"] == "kidney").to_numpy() & np.isfinite(embedded.pooled[:, 0])
    x = embedded.pooled[used].astype(np.float64)
    return np.c_[x, np.ones(len(x))], {key: embedded.truth[used, embedded.column(key)].astype(float) for key in FINDINGS}


def standard(parts: dict[str, Any]) -> dict[str, Any]:
    """The parts with features on the scale of the training kidneys."""
    x = parts["train"][0][:, :-1]
    mean, spread = x.mean(0), x.std(0) + 1e-6
    return {name: (np.c_[(part[0][:, :-1] - mean) / spread, np.ones(len(part[0]))], part[1]) for name, part in parts.items()}


def fit(x: Array, goal: Array, weights: Array, ridge: float) -> Array:
    """(P,) of the least mean weighted softplus(z) - goal z plus ridge; a goal may lie outside 0 to 1."""
    theta, penalty = np.zeros(x.shape[1]), np.full(x.shape[1], ridge)
    penalty[-1] = 1e-6
    weights = weights / weights.sum()
    for _ in range(8):
        p = expit(x @ theta)
        slope = x.T @ (weights * (p - goal)) + penalty * theta
        step = np.linalg.solve((x * (weights * np.maximum(p * (1 - p), 1e-4))[:, None]).T @ x + np.diag(penalty), slope)
        theta -= step
        if np.abs(step).max() < 1e-3:
            break
    return theta


def fit_best(train: tuple[Array, Array, Array], validation: tuple[Array, Array]) -> Array:
    """`fit` with the ridge of least loss on validation goals, which are as noisy as those of training."""
    best, least = np.zeros(0), np.inf
    for ridge in (1e-2, 1e-1):
        theta = fit(*train, ridge)
        z = validation[0] @ theta
        loss = float(np.mean(np.logaddexp(0, z) - validation[1] * z))
        if loss < least:
            best, least = theta, loss
    return best


def error(truth: Array, p: Array, bins: int = 10) -> float:
    """Expected calibration error over bins that hold as many rows each."""
    groups = np.array_split(np.argsort(p), bins)
    return float(sum(len(g) * abs(p[g].mean() - truth[g].mean()) for g in groups) / len(p))


def labels(parts: dict[str, Any]) -> None:
    """Labels flipped at random in training and validation; ways to live with it; clean test kidneys."""
    parts = standard(parts)
    ways = ("as they are", "goals unbiased", "doubtful ones left out", "three readings")
    print("| flipped | " + " | ".join(f"{way}: AUROC, ECE" for way in ways) + " |\n|---" + "|---" * len(ways) + "|")
    for rate in (0.0, 0.1, 0.2, 0.4):
        cells: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for seed in range(2):
            for key in FINDINGS:
                for way, found in _with_flips(parts, key, rate, np.random.default_rng([seed, FINDINGS.index(key)])).items():
                    cells[way].append(found)
        told = " | ".join(f"{np.mean(c, axis=0)[0]:.3f}, {np.mean(c, axis=0)[1]:.3f}" for c in cells.values())
        print(f"| {rate:.0%} | {told} |", flush=True)


def _with_flips(parts: dict[str, Any], key: str, rate: float, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    chosen = rng.permutation(len(parts["train"][0]))[:1000]
    x, clean = parts["train"][0][chosen], parts["train"][1][key][chosen]
    vx, vclean = parts["validation"][0], parts["validation"][1][key]

    def flipped(y: Array) -> Array:
        return np.abs(y - (rng.random(len(y)) < rate))

    y, vy, ones = flipped(clean), flipped(vclean), np.ones(len(x))
    unbiased = lambda goal: (goal - rate) / (1 - 2 * rate)  # noqa: E731 - Natarajan et al. 2013
    votes = lambda c, first: ((flipped(c) + flipped(c) + first) >= 2).astype(float)  # noqa: E731
    found = {
        "as they are": fit_best((x, y, ones), (vx, vy)),
        "goals unbiased": fit_best((x, unbiased(y), ones), (vx, unbiased(vy))),
        "doubtful ones left out": fit_best((x, y, _trusted(x, y)), (vx, vy)),
        "three readings": fit_best((x, votes(clean, y), ones), (vx, votes(vclean, vy))),
    }
    tx, truth = parts["test"][0], parts["test"][1][key]
    return {way: (auroc(truth, tx @ theta), error(truth, expit(tx @ theta))) for way, theta in found.items()}


def _trusted(x: Array, y: Array) -> Array:
    """1, or 0 where a head of other folds is as sure of the other class as of the mean member of it (Northcutt 2021)."""
    p = np.empty(len(y))
    for fold in range(4):
        out = np.arange(len(y)) % 4 == fold
        p[out] = expit(x[out] @ fit(x[~out], y[~out], np.ones(int((~out).sum())), 1e-1))
    yes, no = p[y == 1].mean(), (1 - p[y == 0]).mean()
    return np.where(((y == 0) & (p >= yes)) | ((y == 1) & (1 - p >= no)), 0.0, 1.0)


def rare(parts: dict[str, Any]) -> None:
    """Findings thinned to a few per cent in all parts; what weighting does to probabilities, and what brings them back."""
    parts = standard(parts)
    ways = ("plain", "oversampled", "oversampled, prior corrected", "oversampled, calibrated again")
    print("| present | way | AUROC | mean score over share present | ECE |\n|---|---|---|---|---|")
    for share in (0.01, 0.02, 0.05):
        cells: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
        for seed in range(SEEDS):
            for key in FINDINGS:
                for way, found in _thinned(parts, key, share, np.random.default_rng([seed, FINDINGS.index(key)])).items():
                    cells[way].append(found)
        for way, found in cells.items():
            a, b, c = np.mean(found, axis=0)
            print(f"| {share:.0%} | {way} | {a:.3f} | {b:.2f} | {c:.4f} |", flush=True)


def _thinned(parts: dict[str, Any], key: str, share: float, rng: np.random.Generator) -> dict[str, tuple[float, float, float]]:
    thin = {name: _at(part, key, share, rng) for name, part in parts.items()}
    (x, y), (vx, vy), (tx, truth) = thin["train"], thin["validation"], thin["test"]
    more = (1 - y.mean()) / y.mean()
    weights = np.where(y == 1, more, 1.0)
    plain, over = fit(x, y, np.ones(len(y)), 1e-2), fit(x, y, weights, 1e-2)
    margins = {"plain": tx @ plain, "oversampled": tx @ over, "oversampled, prior corrected": tx @ over - np.log(more)}
    again = calibrate(vy.astype(int), vx @ over).probability(tx @ over)
    margins["oversampled, calibrated again"] = logit(np.clip(again, 1e-6, 1 - 1e-6))
    return {way: (auroc(truth, z), float(expit(z).mean() / truth.mean()), error(truth, expit(z))) for way, z in margins.items()}


def _at(part: tuple[Array, dict[str, Array]], key: str, share: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """The kidneys with so many positives left that `share` of them have the finding."""
    x, y = part[0], part[1][key]
    absent, present = rng.permutation(np.flatnonzero(y == 0))[:MOST], np.flatnonzero(y == 1)
    kept = rng.permutation(present)[: max(3, round(share / (1 - share) * len(absent)))]
    rows = rng.permutation(np.r_[absent, kept])
    return x[rows], y[rows]


def batches() -> None:
    """Coefficients and risks from mini-batches with many events, with and without weights, beside all patients at once."""
    print("| fitted on | slope (1 is right) | Harrell's C | mean risk at 3 years over share dead |\n|---|---|---|---|")
    cells: dict[str, list[list[float]]] = {}
    for seed in range(SEEDS):
        for way, values in _simulated(np.random.default_rng([7, seed])).items():
            cells.setdefault(way, []).append(values)
    for way, values in cells.items():
        slope, c, risk = np.mean(values, axis=0)
        print(f"| {way} | {slope:.3f} | {c:.3f} | {risk:.2f} |")


def _simulated(rng: np.random.Generator, n: int = 3000, width: int = 6) -> dict[str, list[float]]:
    beta = np.array([0.9, -0.7, 0.5, 0.4, -0.3, 0.2])
    x = rng.standard_normal((2 * n, width))
    death = (rng.exponential(size=2 * n) / np.exp(x @ beta)) ** (1 / 1.25) * 15.0
    end = rng.uniform(1.0, 5.0, 2 * n)
    time, event = np.minimum(death, end), death <= end
    train, test = slice(0, n), slice(n, None)
    whole = fit_cox(x[train], time[train], event[train]).coefficients
    fits = {"all patients (medvl)": (whole, np.ones(n))}
    share = event[train].mean()
    for name, half, weighted in (
        ("batches of 32 at random", False, False),
        ("half events", True, False),
        ("half events, weighted", True, True),
    ):
        weights = np.where(event[train], share / 0.5, (1 - share) / 0.5) if weighted else np.ones(n)
        rows = _draw(event[train], half, rng)
        fits[name] = (
            _fit_batches(x[train], time[train], event[train], weights, rows),
            None if half and not weighted else np.ones(n),
        )
    return {
        name: _judge(theta, fits[name][1], (x, time, event, death), (train, test), beta, share)
        for name, (theta, _) in fits.items()
    }


def _draw(event: NDArray[np.bool_], half: bool, rng: np.random.Generator, many: int = 600, size: int = 32) -> NDArray[np.int64]:
    if not half:
        return np.stack([rng.choice(len(event), size, replace=False) for _ in range(many)])
    dead, alive = np.flatnonzero(event), np.flatnonzero(~event)
    return np.stack(
        [np.r_[rng.choice(dead, size // 2, replace=False), rng.choice(alive, size // 2, replace=False)] for _ in range(many)]
    )


def _fit_batches(x: Array, time: Array, event: NDArray[np.bool_], weights: Array, rows: NDArray[np.int64]) -> Array:
    """Coefficients of the greatest sum of the batches' partial likelihoods; risk sets are a batch's, weighted."""
    order = np.take_along_axis(rows, np.argsort(-time[rows], axis=1), axis=1)
    features, dead, heavy = (torch.from_numpy(np.asarray(v[order], np.float64)) for v in (x, event, np.log(weights)))
    theta = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([theta], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        risk = features @ theta
        loss = -((risk - torch.logcumsumexp(risk + heavy, dim=1)) * dead * heavy.exp()).sum() / dead.sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return np.asarray(theta.detach())


def _judge(
    theta: Array, plain: Array | None, data: tuple[Any, ...], parts: tuple[slice, slice], beta: Array, share: float
) -> list[float]:
    """Slope of the fitted on the true log hazard, concordance, and mean risk at 3 years (Breslow) over what happened."""
    (x, time, event, death), (train, test) = data, parts
    weights = np.ones(len(x[train])) if plain is not None else np.where(event[train], 0.5 / share, 0.5 / (1 - share))
    order = np.argsort(time[train])
    hazard = (weights * np.exp(x[train] @ theta))[order]
    at_risk = hazard[::-1].cumsum()[::-1]
    baseline = float(((weights * event[train])[order] / at_risk)[time[train][order] <= 3.0].sum())
    risk = 1 - np.exp(-baseline * np.exp(x[test] @ theta))
    truth = x[test] @ beta
    slope = float((x[test] @ theta) @ truth / (truth @ truth))
    return [slope, harrell(time[test], event[test], x[test] @ theta), float(risk.mean() / (death[test] <= 3.0).mean())]


if __name__ == "__main__":
    main()
