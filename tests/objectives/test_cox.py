"""Cox's likelihood against lifelines and an explicit double loop."""

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter

from medvl.errors import ConfigError
from medvl.objectives.cox import cox_negative_log_likelihood
from medvl.survival.cox import fit_cox


def _cohort(n: int = 160, decimals: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3))
    x = (x - x.mean(0)) / x.std(0)
    time = rng.exponential(10, n) / np.exp(x @ [0.9, -0.5, 0.0])
    return x, np.round(time, decimals), rng.random(n) < 0.7


def _tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(np.asarray(a)) for a in arrays]


def _breslow_loop(risk: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    terms = [risk[i] - np.log(np.exp(risk[time >= time[i]]).sum()) for i in np.flatnonzero(event)]
    return float(-np.sum(terms))


@pytest.mark.parametrize("decimals", [6, 0])
def test_likelihood_equals_a_loop_in_any_order_with_and_without_ties(decimals: int) -> None:
    x, time, event = _cohort(40, decimals)
    assert (len(set(time)) == 40) == (decimals == 6)
    risk = x @ [1.0, 2.0, -0.5]
    expected = _breslow_loop(risk, time, event) / event.sum()
    for order in (np.arange(40), np.arange(40)[::-1].copy(), np.random.default_rng(1).permutation(40)):
        found = cox_negative_log_likelihood(*_tensors(risk[order], time[order], event[order]))
        assert float(found) == pytest.approx(expected, rel=1e-10)


def _efron_loop(risk: np.ndarray, time: np.ndarray, event: np.ndarray, weights: np.ndarray) -> float:
    total = 0.0
    for t in np.unique(time[event]):
        died = (time == t) & event
        at_risk, ours = (float((weights * np.exp(risk))[rows].sum()) for rows in (time >= t, died))
        n = int(died.sum())
        logs = sum(np.log(at_risk - k / n * ours) for k in range(n))
        total += (weights * risk)[died].sum() - weights[died].mean() * logs
    return float(-total)


@pytest.mark.parametrize("decimals", [6, 0])
def test_efron_equals_a_loop_with_weights_and_strata(decimals: int) -> None:
    x, time, event = _cohort(40, decimals)
    rng = np.random.default_rng(3)
    risk, weights, strata = x @ [1.0, 2.0, -0.5], rng.uniform(0.2, 3, 40), rng.integers(0, 3, 40) * 7
    expected = _efron_loop(risk, time, event, np.ones(40)) / event.sum()
    found = cox_negative_log_likelihood(*_tensors(risk, time, event), ties="efron")
    assert float(found) == pytest.approx(expected, rel=1e-10)
    parts = [_efron_loop(risk[s], time[s], event[s], weights[s]) for s in (strata == k for k in (0, 7, 14))]
    s, w = _tensors(strata, weights)
    found = cox_negative_log_likelihood(*_tensors(risk, time, event), ties="efron", strata=s, weights=w)
    assert float(found) == pytest.approx(sum(parts) / weights[event].sum(), rel=1e-10)


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_likelihood_equals_the_numpy_one_of_the_fit(ties: str) -> None:
    x, time, event = _cohort(80, 0)
    fitted = fit_cox(x, time, event, ties=ties)
    loss = cox_negative_log_likelihood(*_tensors(x @ fitted.coefficients, time, event), ties=ties)
    assert float(-loss * event.sum()) == pytest.approx(fitted.log_likelihood, rel=1e-12)


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_likelihood_equals_lifelines(ties: str) -> None:
    x, time, event = _cohort()
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "t": time, "e": event})
    fitted = CoxPHFitter().fit(frame, "t", "e")
    loss = cox_negative_log_likelihood(*_tensors(x @ fitted.params_.to_numpy(), time, event), ties=ties)
    assert float(-loss * event.sum()) == pytest.approx(fitted.log_likelihood_, rel=1e-7)


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_rows_without_weight_or_endpoint_are_as_if_not_there(ties: str) -> None:
    x, time, event = _cohort(30, 0)
    risk = torch.from_numpy(x[:, 0]).requires_grad_()
    few = cox_negative_log_likelihood(risk[5:], *_tensors(time[5:], event[5:]), ties=ties)
    time[:3] = np.nan
    weights = np.where(np.arange(30) < 5, 0.0, 1.0)
    found = cox_negative_log_likelihood(risk, *_tensors(time, event), ties=ties, weights=torch.from_numpy(weights))
    assert found.item() == pytest.approx(few.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(found, risk)
    assert (gradient[:5] == 0).all()
    assert torch.allclose(gradient, torch.autograd.grad(few, risk)[0], atol=1e-14)
    nobody = cox_negative_log_likelihood(risk, torch.full((30,), torch.nan), torch.ones(30, dtype=torch.bool), ties=ties)
    assert nobody.item() == 0
    assert (torch.autograd.grad(nobody, risk)[0] == 0).all()


def test_ties_of_another_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match="not exact"):
        cox_negative_log_likelihood(torch.zeros(2), torch.ones(2), torch.ones(2), ties="exact")  # type: ignore[arg-type]


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_no_event_is_zero_with_a_gradient_path(ties: str) -> None:
    risk = torch.randn(6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = cox_negative_log_likelihood(risk, torch.arange(6.0), torch.zeros(6, dtype=torch.bool), ties=ties)
    found.backward()
    assert found.item() == 0
    assert risk.grad is not None
    assert (risk.grad == 0).all()


@pytest.mark.parametrize("ties", ["breslow", "efron"])
@pytest.mark.parametrize("size", [200.0, -200.0])
def test_extreme_risks_stay_finite(size: float, ties: str) -> None:
    risk = (torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0]) * size).requires_grad_()
    found = cox_negative_log_likelihood(risk, torch.tensor([1.0, 2.0, 2.0, 3.0, 4.0]), torch.tensor([0, 1, 1, 0, 1]), ties=ties)
    found.backward()
    assert torch.isfinite(found)
    assert found.item() > 50
    assert risk.grad is not None
    assert torch.isfinite(risk.grad).all()


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_one_patient_alone_tells_nothing(ties: str) -> None:
    found = cox_negative_log_likelihood(torch.tensor([3.0]), torch.tensor([5.0]), torch.tensor([True]), ties=ties)
    assert found.item() == 0


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_gradient_equals_finite_differences_with_ties(ties: str) -> None:
    x, time, event = _cohort(12, 0)
    risk = torch.from_numpy(x[:, 0]).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: cox_negative_log_likelihood(r, *_tensors(time, event), ties=ties), (risk,))
