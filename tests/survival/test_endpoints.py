"""Endpoints: what their columns mean, what is left out, and when nothing may be fitted."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from medvl.errors import ConfigError
from medvl.survival.cox import fit_cox
from medvl.survival.endpoints import Endpoint

TABLE = pd.DataFrame(
    {
        "months": [12.0, 6, 0, np.nan, 24, 1],
        "status": ["dead", "alive", "alive", "dead", None, "lost"],
        "cause": [1, 2, 0, 1, 2, -1],
        "censorship": [0, 1, 1, 0, 1, 0],
    }
)


def test_what_is_read_and_what_is_left_out() -> None:
    endpoint = Endpoint(
        name="OS", time="months", event="status", happened=("dead",), censored=("alive",), unknown=("lost",), unit="months"
    )
    found = endpoint.read(TABLE)
    assert found.known.tolist() == [True, True, True, False, False, False]
    assert found.event.tolist() == [True, False, False, False, False, False]
    assert found.time_days[0] == pytest.approx(365.25)
    assert np.isnan(found.time_days[3:]).all()
    expected = "OS: 3 patients, 1 events; 3 left out because time or event is not known; 1 with no follow-up at all"
    assert found.describe() == expected


def test_a_reversed_flag_is_said_once_and_read_right() -> None:
    endpoint = Endpoint(name="OS", time="months", event="censorship", happened=(0,), censored=(1,))
    assert endpoint.read(TABLE).event.tolist() == [True, False, False, False, False, True]


def test_another_cause_ends_the_follow_up() -> None:
    dss = Endpoint(name="DSS", time="months", event="cause", competing=(2,), unknown=(-1,)).read(TABLE)
    assert dss.event.tolist() == [True, False, False, False, False, False]
    assert dss.competing.tolist() == [False, True, False, False, True, False]
    assert "2 ended by another event" in dss.describe()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"event": "status"}, "values \\['alive', 'dead', 'lost'\\], none of"),
        ({"event": "cause"}, "values \\['-1', '2'\\]"),
        ({"time": "days"}, "no column \\['days'\\]"),
        ({"censored": (0, 1)}, "one value means two things"),
    ],
)
def test_unclear_columns_are_refused(change: dict, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Endpoint(**({"name": "OS", "time": "months", "event": "censorship"} | change)).read(TABLE)


def test_negative_times_and_unknown_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 times below 0, such as -3"):
        Endpoint(name="OS", time="t", event="e").read(pd.DataFrame({"t": [-3, 2], "e": [0, 1]}))
    with pytest.raises(ValidationError):
        Endpoint(name="OS", time="t", event="e", colour="red")  # type: ignore[call-arg]


def test_too_few_events_are_refused_and_few_for_the_variables_told() -> None:
    few = pd.DataFrame({"t": np.arange(50) + 1, "e": np.arange(50) < 9})
    endpoint = Endpoint(name="RFS", time="t", event="e", happened=(True,), censored=(False,))
    assert endpoint.read(few).refusal() == "RFS: 9 events among 50 patients, 10 are needed; no model is fitted"
    with pytest.raises(ConfigError, match="9 events"):
        endpoint.read(few).require()
    enough = endpoint.read(few.assign(e=np.arange(50) < 10))
    assert enough.refusal() is None
    enough.require()
    assert enough.caution(1) is None
    assert enough.caution(4).startswith("RFS: 2.5 events per variable (10 for 4)")


def test_endpoints_of_one_table_share_no_baseline() -> None:
    rng = np.random.default_rng(0)
    x, n = rng.normal(size=(300, 2)), 300
    relapse, death, end = rng.exponential(5, n) / np.exp(x[:, 0]), rng.exponential(15, n), rng.uniform(3, 20, n)
    table = pd.DataFrame(
        {"t_rfs": np.minimum(relapse, end), "e_rfs": relapse <= end, "t_os": np.minimum(death, end), "e_os": death <= end}
    )
    fits = {}
    for name in ("rfs", "os"):
        found = Endpoint(name=name, time=f"t_{name}", event=f"e_{name}", happened=(True,), censored=(False,)).read(table)
        fits[name] = fit_cox(x[found.known], found.time_days[found.known], found.event[found.known])
    curves = {k: f.survival(np.zeros((1, 2)), [3.0])[0, 0] for k, f in fits.items()}
    assert curves["rfs"] < curves["os"] - 0.1
