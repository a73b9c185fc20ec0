"""What features add to age: concordance of held-out risks beside that of age alone, on the same patients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lifelines.utils import concordance_index

from medvl.training.measure import held_out_risks, survival_table


def _cohort(seed: int, n: int = 150, *, ages: bool = True) -> tuple[Any, Any, np.ndarray]:
    """One region with two features, of which the first matters as much as ten years; two outcomes are not known."""
    rng = np.random.default_rng(seed)
    x, age = rng.normal(size=(n, 2)), rng.uniform(40, 80, n)
    death, censor = rng.exponential(900 * np.exp(-x[:, 0] - (age - 60) / 10)), rng.uniform(200, 3000, n)
    truths = [
        {"time_days": float(t), "event": bool(d <= c), "age_years": float(a)}
        for t, d, c, a in zip(np.minimum(death, censor), death, censor, age, strict=True)
    ]
    truths[3]["time_days"] = truths[4]["event"] = None  # type: ignore[assignment]
    if not ages:
        truths[7]["age_years"] = None  # type: ignore[assignment]
    cohort = SimpleNamespace(cases=[{"truth": t} for t in truths], regions=["kidney_left"])
    part = SimpleNamespace(cohort=cohort, texts=SimpleNamespace(rows=np.arange(n), columns=np.zeros(n, int)))
    return {"kidney": part}, {"kidney": torch.from_numpy(x).float()}, age


def test_concordance_of_age_alone_stands_beside_that_of_features_and_age() -> None:
    train, test = _cohort(0), _cohort(1)
    risks = held_out_risks(train[0], train[1], test[0], test[1], 0.02)
    assert len(risks.time) == 148
    told = survival_table(train[0], train[1], test[0], test[1], 0.02, 100)
    alone = concordance_index(risks.time, -risks.age, risks.event)
    both = concordance_index(risks.time, -risks.risk, risks.event)
    assert told["c_index"] == pytest.approx(both, abs=1e-4)
    assert told["age_alone"]["c_index"] == pytest.approx(alone, abs=1e-4)
    assert told["minus_age_alone"]["value"] == pytest.approx(both - alone, abs=1e-4)
    assert told["minus_age_alone"]["ci"][0] > 0
    assert told["half_known"] == 2


def test_no_age_alone_where_an_age_is_not_known() -> None:
    train, test = _cohort(0), _cohort(1, ages=False)
    told = survival_table(train[0], train[1], test[0], test[1], 0.02, 0)
    assert told["ci"] == []
    assert "age_alone" not in told
