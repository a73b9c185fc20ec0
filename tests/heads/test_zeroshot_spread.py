"""Spread over paraphrases, limits from validation, and null images."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from medvl.evaluation.calibration import Calibration, calibrate
from medvl.heads.paraphrases import Paraphrases, limit_of, spread_of
from medvl.heads.priors import weigh_priors
from medvl.heads.zeroshot import pair_of

CUT = Calibration(4.0, 0.0, 0.5, 0.45, 0.55, 20, 20)


def _towers(shapes: dict[str, tuple[int, int, int]], prior: torch.Tensor | None = None) -> SimpleNamespace:
    """Random prompts, (templates, present, absent) by finding."""
    made = torch.Generator().manual_seed(1)
    vectors = {
        f"{key}@r": tuple(functional.normalize(torch.randn(t, n, 6, generator=made), dim=-1) for n in (p, a))
        for key, (t, p, a) in shapes.items()
    }
    return SimpleNamespace(vectors=vectors, prior={} if prior is None else {"r": prior})


def test_every_draw_is_an_ensemble_of_prompts_drawn_by_template_and_descriptor() -> None:
    null = torch.full((6,), 0.1)
    towers = _towers({"a": (3, 4, 2), "b": (3, 4, 2), "c": (1, 2, 2)}, null)
    rows = functional.normalize(torch.randn(5, 6, generator=torch.Generator().manual_seed(2)), dim=-1)
    drawn = Paraphrases(towers, draws=40, seed=3).margins("r", rows, ["a", "b", "c"])
    assert {key: values.shape for key, values in drawn.items()} == dict.fromkeys("abc", (5, 40))
    rng = np.random.default_rng([3, 3, 4, 2])
    frames = rng.multinomial(3, [1 / 3] * 3, size=40)
    present, absent = rng.multinomial(4, [0.25] * 4, size=40), rng.multinomial(2, [0.5] * 2, size=40)
    for key in "ab":
        for draw in (0, 7, 39):
            expected = np.zeros(5)
            for sign, counts, side in ((1, present, 0), (-1, absent, 1)):
                said = [
                    towers.vectors[f"{key}@r"][side][t, d].numpy()
                    for t in range(3)
                    for d in range(counts.shape[1])
                    for _ in range(frames[draw, t] * counts[draw, d])
                ]
                mean = np.mean(said, axis=0)
                expected += sign * ((rows - null).numpy() @ (mean / np.linalg.norm(mean)))
            np.testing.assert_allclose(drawn[key][:, draw], expected, atol=1e-5)


def test_draws_scatter_around_the_whole_ensemble_and_one_wording_has_no_spread() -> None:
    towers = _towers({"a": (4, 6, 6), "one": (1, 1, 1)})
    row = functional.normalize(torch.ones(1, 6), dim=-1)
    drawn = Paraphrases(towers, draws=400).margins("r", row, ["a", "one"])
    assert set(drawn) == {"a"}
    pair = pair_of(*towers.vectors["a@r"])
    whole = float(row[0] @ (pair[0] - pair[1]))
    assert drawn["a"].min() < whole < drawn["a"].max()


def test_spread_is_that_of_the_probability() -> None:
    margins = np.array([-0.5, -0.1, 0.2, 0.3])
    p = 1 / (1 + np.exp(-4 * margins))
    found = spread_of(CUT, 0.1, margins)
    assert found.sd == pytest.approx(p.std())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(p, [0.025, 0.975])))
    assert found.turned == 0.5
    assert spread_of(CUT, -0.2, margins).turned == 0.5
    assert spread_of(CUT, 0.4, np.full(3, 0.4)).as_dict()["turned"] == 0


def test_limit_withholds_few_of_the_decided_and_ignores_the_undecided() -> None:
    rng = np.random.default_rng(0)
    margins = np.concatenate([rng.normal(0.6, 0.3, 100), rng.normal(-0.6, 0.3, 100), np.zeros(30)])
    drawn = margins[:, None] + rng.normal(0, 0.3, (230, 200))
    limit = limit_of(CUT, margins, drawn)
    decided = [i for i, x in enumerate(margins) if CUT.verdict(float(CUT.probability(x))) != "undecided"]
    turned = [np.mean((drawn[i] >= 0) != (margins[i] >= 0)) for i in decided]
    assert 0 < np.mean(np.array(turned) > limit) <= 0.05
    assert limit == limit_of(CUT, margins[:200], drawn[:200])
    assert limit_of(CUT, np.zeros(4), np.zeros((4, 3))) == 0


def _asked(shift: float, n: int = 400) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A finding asked left and right, whose margins on one side are moved by `shift`."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, n)
    side = np.arange(n) % 2
    return {"f": (labels, labels + rng.normal(0, 0.8, n) + shift * side, np.arange(n) // 2)}


def test_a_prior_is_used_only_where_it_helps_on_validation() -> None:
    best, table = weigh_priors({"none": _asked(2.0), "mean": _asked(0.0), "air": _asked(4.0)})
    assert best == "mean"
    assert table["mean"]["auroc"] > table["none"]["auroc"] > table["air"]["auroc"]
    assert table["mean"]["log_loss"] < table["none"]["log_loss"]
    assert weigh_priors({"none": _asked(0.0), "mean": _asked(0.0), "air": _asked(2.0)})[0] == "none"
    labels, margins, patients = _asked(0.0)["f"]
    constant = {"f": (labels, margins + 3, patients)}
    assert weigh_priors({"none": _asked(0.0), "mean": constant})[0] == "none"


def test_too_few_answers_choose_no_prior() -> None:
    assert weigh_priors({"none": {k: tuple(a[:6] for a in v) for k, v in _asked(0).items()}}) == ("none", {})  # type: ignore[arg-type]


def test_the_calibration_of_these_tests_is_one_that_is_fitted() -> None:
    labels, margins, _ = _asked(0.0)["f"]
    assert calibrate(labels, margins).slope > 0
