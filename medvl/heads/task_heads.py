"""One head for each type of downstream task, and what is measured of it: grades, classes, time to an event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from medvl.errors import ConfigError
from medvl.evaluation.calibration import calibrate
from medvl.evaluation.classification import balanced_accuracy, macro_f1, ordinal_error, quadratic_kappa
from medvl.evaluation.intervals import Statistic, bootstrap
from medvl.evaluation.metrics import auroc_of, average_precision_of, harrell_of
from medvl.heads.few_shot import mean_of
from medvl.heads.ordinal import fit_ordinal
from medvl.heads.probe import fit_linear_probe
from medvl.survival.cox import fit_cox
from medvl.survival.penalty import choose_penalty

Array = NDArray[np.float64]
TaskType = Literal["ordinal", "classes", "survival"]
MAIN = {"ordinal": "quadratic kappa", "classes": "AUROC", "survival": "Harrell's C"}


@dataclass(frozen=True, eq=False)
class Known:
    """Scans of U lesions or patients whose target is known.

    Args:
        x: (S, P) features; unit: (S,) whose.
        y: (U,) class numbers, or (U, 2) days and whether it happened.
        patients: (U,); n_classes: 0 for times.
    """

    x: Array
    unit: NDArray[np.int64]
    y: NDArray[Any]
    patients: NDArray[np.str_]
    n_classes: int

    def fuse(self, scores: Array) -> Array:
        """(U, K) mean of (S, K) over the scans of each."""
        out = np.zeros((len(self.y), scores.shape[1]))
        np.add.at(out, self.unit, scores)
        return out / np.bincount(self.unit, minlength=len(self.y))[:, None]

    def take(self, rows: NDArray[np.int64]) -> Known:
        """Some of the lesions, with their scans."""
        place = np.full(len(self.y), -1)
        place[rows] = np.arange(len(rows))
        inside = place[self.unit] >= 0
        return replace(self, x=self.x[inside], unit=place[self.unit[inside]], y=self.y[rows], patients=self.patients[rows])


@dataclass(frozen=True, eq=False)
class Head:
    """A fitted head.

    Args:
        raw: (S, P) features to (S, K) logits or log hazards, which are averaged over scans.
        decide: (U, K) fused scores to (U,) classes; `chances` to (U, C) probabilities. None for times.
        told: what validation chose.
    """

    raw: Callable[[Array], Array]
    decide: Callable[[Array], NDArray[np.int64]] | None
    chances: Callable[[Array], Array] | None
    told: dict[str, Any]

    def scores(self, known: Known) -> Array:
        """(U, K), fused over scans."""
        return known.fuse(self.raw(known.x))


def fit_head(kind: TaskType, training: Known, validation: Known) -> Head:
    """Fit on training scans; the penalty, and the threshold of two classes, are chosen on validation lesions.

    Raises:
        ConfigError: a class without a training row, no validation row, or too few events to fit.
    """
    if kind == "survival":
        return _survival(training, validation)
    pairs = [(part.x, part.y[part.unit]) for part in (training, validation)]
    n = training.n_classes
    if kind == "ordinal":
        return _ordinal(pairs[0], pairs[1], validation, n)
    probe = fit_linear_probe(pairs[0], pairs[1], "multiclass", n)
    told: dict[str, Any] = {"penalty": probe.penalties[0]}
    if n > 2:
        return Head(probe.logits, lambda s: s.argmax(1), lambda s: np.asarray(softmax(s, axis=1)), told)
    held = validation.fuse(probe.logits(validation.x))
    try:
        fitted = calibrate(validation.y, held[:, 1] - held[:, 0])
    except ValueError as error:
        raise ConfigError(f"no threshold can be chosen on validation: {error}") from error

    def chances(s: Array) -> Array:
        p = fitted.probability(s[:, 1] - s[:, 0])
        return np.stack([1 - p, p], 1)

    told["threshold"] = fitted.threshold
    return Head(probe.logits, lambda s: (chances(s)[:, 1] >= fitted.threshold).astype(np.int64), chances, told)


def _ordinal(training: tuple[Array, Any], held: tuple[Array, Any], validation: Known, n: int) -> Head:
    """Proportional odds; where lesions have several scans, slope and cuts are those of the mean over validation scans.

    A mean varies less than single scans, so cuts for single scans would call nearly everything the middle grade.
    """
    graded = fit_ordinal(training, held, n)
    fused = validation.fuse(graded.score(validation.x)[:, None])
    again = None
    if len(validation.x) > len(validation.y) and len(np.unique(validation.y)) == n:
        again = fit_ordinal((fused, validation.y), (fused, validation.y), n, penalties=[1e-6])

    def place(s: Array) -> Array:
        return s[:, 0] if again is None else again.score(s)

    cut = again or graded
    told = {"penalty": graded.penalty, "cuts": [round(float(c), 6) for c in cut.cuts]}
    return Head(lambda x: graded.score(x)[:, None], lambda s: cut.grades(place(s)), lambda s: cut.probabilities(place(s)), told)


def _survival(training: Known, validation: Known) -> Head:
    """Ridge Cox on the mean features of each patient, in units of their spread."""
    x, held = training.fuse(training.x), validation.fuse(validation.x)
    center, spread = x.mean(0), x.std(0)
    scale = np.where(spread > 1e-12, spread, 1.0)
    rows, kept = (x - center) / scale, (held - center) / scale
    (time, event), (held_time, held_event) = training.y.T, validation.y.T
    happened = event.astype(bool)
    choice = choose_penalty(rows, time, happened, validation=(kept, held_time, held_event.astype(bool)))
    fit = fit_cox(rows, time, happened, penalty=choice.penalty)
    return Head(lambda v: fit.log_hazard((v - center) / scale)[:, None], None, None, {"penalty": choice.penalty})


def main_statistic(kind: TaskType, head: Head, test: Known, scores: Array) -> Statistic:
    """The one number of a task: quadratic kappa, AUROC (one against the rest, averaged over more than two), or Harrell's C."""
    if kind == "survival":
        time, event = test.y.T
        return harrell_of(time, event, scores[:, 0])
    if kind == "classes":
        return _area(head, test, scores)
    grades = _decided(head, scores)
    return lambda rows: quadratic_kappa(test.y[rows], grades[rows])


def measures(kind: TaskType, head: Head, test: Known, scores: Array, draws: int) -> dict[str, Any]:
    """Value and 95 % interval over test patients of everything that is told of a task, and how many it rests on."""
    sizes: dict[str, Any] = {"n": len(test.y), "patients": len(np.unique(test.patients))}
    wanted = {MAIN[kind]: main_statistic(kind, head, test, scores)}
    if kind == "survival":
        sizes["events"] = int(test.y[:, 1].sum())
    else:
        sizes["sizes"] = np.bincount(test.y, minlength=test.n_classes).tolist()
        wanted |= _of_classes(kind, head, test, scores)
    return sizes | {name: _estimate(statistic, test.patients, draws) for name, statistic in wanted.items()}


def _of_classes(kind: TaskType, head: Head, test: Known, scores: Array) -> dict[str, Statistic]:
    y, said = test.y, _decided(head, scores)
    if kind == "ordinal":
        return {
            "mean absolute error": lambda rows: ordinal_error(y[rows], said[rows]),
            "AUROC": _area(head, test, scores),
        }
    if test.n_classes > 2:
        return {
            "balanced accuracy": lambda rows: balanced_accuracy(y[rows], said[rows]),
            "macro F1": lambda rows: macro_f1(y[rows], said[rows], classes=np.unique(y)),
        }
    return {
        "average precision": average_precision_of(y, scores[:, 1] - scores[:, 0]),
        "sensitivity": lambda rows: _share(said[rows] == 1, y[rows] == 1),
        "specificity": lambda rows: _share(said[rows] == 0, y[rows] == 0),
    }


def _area(head: Head, test: Known, scores: Array) -> Statistic:
    if head.chances is None:
        raise ConfigError("a head of times has no classes")
    p = head.chances(scores)
    if test.n_classes == 2:
        return auroc_of(test.y, scores[:, -1] - (scores[:, 0] if scores.shape[1] > 1 else 0))
    return mean_of([auroc_of((test.y == c).astype(int), p[:, c]) for c in range(test.n_classes)])


def _decided(head: Head, scores: Array) -> NDArray[np.int64]:
    if head.decide is None:
        raise ConfigError("a head of times decides on no class")
    return head.decide(scores)


def _share(right: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    if not among.any():
        raise ValueError("a class is missing")
    return float(right[among].mean())


def _estimate(statistic: Statistic, patients: NDArray[np.str_], draws: int) -> dict[str, Any]:
    try:
        value = float(statistic(np.arange(len(patients))))
        low, high = bootstrap(statistic, patients, n=draws)
    except ValueError as error:
        return {"value": None, "ci": None, "na": str(error)}
    return {"value": round(value, 4) + 0.0, "ci": [round(low, 4) + 0.0, round(high, 4) + 0.0]}
