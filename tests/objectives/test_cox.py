"""Cox's likelihood and ridge fit against lifelines and an explicit double loop."""

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter

from medvl.objectives.cox import cox_negative_log_likelihood, fit_ridge_cox


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


def test_likelihood_and_coefficients_equal_lifelines() -> None:
    x, time, event = _cohort()
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "t": time, "e": event})
    fitted = CoxPHFitter().fit(frame, "t", "e")
    ours = fit_ridge_cox(*_tensors(x, time, event), 0.0)
    assert ours.dtype == torch.float64
    assert np.allclose(ours, fitted.params_, atol=1e-4)
    loss = cox_negative_log_likelihood(*_tensors(x @ fitted.params_.to_numpy(), time, event))
    assert float(-loss * event.sum()) == pytest.approx(fitted.log_likelihood_, rel=1e-7)


@pytest.mark.parametrize("penalty", [0.05, 1.0])
def test_ridge_coefficients_equal_lifelines(penalty: float) -> None:
    x, time, event = _cohort()
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "t": time, "e": event})
    # lifelines divides its log-likelihood by the number of patients, we by the number of events.
    theirs = CoxPHFitter(penalizer=penalty * event.mean(), l1_ratio=0.0).fit(frame, "t", "e").params_
    # It also standardises by the sample standard deviation.
    assert np.allclose(fit_ridge_cox(*_tensors(x, time, event), penalty), theirs, atol=5e-3)


def test_ridge_shrinks_and_survives_more_features_than_patients() -> None:
    x, time, event = _cohort()
    norms = [float(fit_ridge_cox(*_tensors(x, time, event), p).norm()) for p in (0.0, 0.1, 1.0, 100.0)]
    assert norms == sorted(norms, reverse=True)
    assert norms[-1] < 0.02
    wide = np.random.default_rng(2).normal(size=(40, 90))
    assert torch.isfinite(fit_ridge_cox(*_tensors(wide, time[:40], event[:40]), 0.1)).all()


def test_no_event_is_zero_with_a_gradient_path() -> None:
    risk = torch.randn(6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = cox_negative_log_likelihood(risk, torch.arange(6.0), torch.zeros(6, dtype=torch.bool))
    found.backward()
    assert found.item() == 0
    assert risk.grad is not None
    assert (risk.grad == 0).all()


@pytest.mark.parametrize("size", [200.0, -200.0])
def test_extreme_risks_stay_finite(size: float) -> None:
    risk = (torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0]) * size).requires_grad_()
    found = cox_negative_log_likelihood(risk, torch.tensor([1.0, 2.0, 2.0, 3.0, 4.0]), torch.tensor([0, 1, 1, 0, 1]))
    found.backward()
    assert torch.isfinite(found)
    assert found.item() > 50
    assert risk.grad is not None
    assert torch.isfinite(risk.grad).all()


def test_one_patient_alone_tells_nothing() -> None:
    found = cox_negative_log_likelihood(torch.tensor([3.0]), torch.tensor([5.0]), torch.tensor([True]))
    assert found.item() == 0


def test_gradient_equals_finite_differences_with_ties() -> None:
    x, time, event = _cohort(12, 0)
    risk = torch.from_numpy(x[:, 0]).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: cox_negative_log_likelihood(r, *_tensors(time, event)), (risk,))


def test_too_few_events_are_refused() -> None:
    x, time, event = _cohort()
    with pytest.raises(ValueError, match="at least 10 events, found 9"):
        fit_ridge_cox(*_tensors(x, time, event & (np.cumsum(event) <= 9)), 0.1)
