"""Factuality counted by hand, intervals against the plain bootstrap, and a perfect draft scoring one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sklearn.metrics import f1_score

from medvl.data.cohort import describe
from medvl.errors import ConfigError
from medvl.evaluation.factuality import compare, contradictions, f1, facts_of, facts_of_report, factuality

CASES = [describe(11, 50_000 + k) for k in range(40)]
TEXTS = [case["region_texts"] for case in CASES]
WHO = [case["patient_id"] for case in CASES]
LEFT = "There is a solid mass of 30 mm in the left kidney. No cyst."
RIGHT = "There is a 6 mm stone in the right kidney."


def bootstrap(statistic: Callable[[np.ndarray], float], who: Sequence[str], n: int, seed: int) -> tuple[float, float]:
    """Percentile interval, patients drawn one by one."""
    names = sorted(set(who))
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(n):
        drawn = rng.integers(len(names), size=len(names))
        values.append(statistic(np.concatenate([[k for k, w in enumerate(who) if w == names[d]] for d in drawn])))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def test_facts_are_presence_side_trait_and_size() -> None:
    facts = facts_of({"kidney_left": LEFT, "kidney_right": RIGHT, "chest": "Small left pleural effusion. Cardiomegaly."})
    assert facts.present == {"renal_mass", "renal_stone", "pleural_effusion", "cardiomegaly"}
    assert facts.sided == {("renal_mass", "left"), ("renal_stone", "right"), ("pleural_effusion", "left")}
    assert facts.sizes == {("renal_mass", "left"): 30.0, ("renal_stone", "right"): 6.0}
    assert ("renal_cyst", "left") in facts.absent and ("mass_cystic", "left") in facts.absent
    assert facts_of_report(f"FINDINGS:\n{LEFT}\n{RIGHT}\n").sided == {("renal_mass", "left"), ("renal_stone", "right")}


def test_a_finding_on_the_wrong_side_is_present_but_not_there() -> None:
    said, true = facts_of({"kidney_left": "Left renal stone, 8 mm."}), facts_of({"kidney_right": "Right renal stone, 6 mm."})
    got = compare(said, true)
    assert got["presence"] == {"renal_stone": [1, 0, 0]}
    assert got["side"] == {"renal_stone": [0, 1, 1]} == got["size"]


@pytest.mark.parametrize(("said", "right"), [(36, True), (24, True), (37, False), (23, False)])
def test_sizes_are_right_within_a_fifth(said: int, right: bool) -> None:
    got = compare(facts_of({"kidney_left": f"A mass of {said} mm."}), facts_of({"kidney_left": "A mass of 30 mm."}))
    assert got["size"]["renal_mass"] == ([1, 0, 0] if right else [0, 1, 1])


def test_small_sizes_may_differ_by_three_mm_and_left_out_ones_are_missed() -> None:
    six = facts_of({"kidney_left": "A stone of 6 mm."})
    assert compare(facts_of({"kidney_left": "A stone of 9 mm."}), six)["size"]["renal_stone"] == [1, 0, 0]
    assert compare(facts_of({"kidney_left": "A stone of 10 mm."}), six)["size"]["renal_stone"] == [0, 1, 1]
    assert compare(facts_of({"kidney_left": "A stone."}), six)["size"]["renal_stone"] == [0, 0, 1]


def test_doubt_is_no_statement_and_denial_is_contradicted() -> None:
    true = facts_of({"kidney_left": "There is a mass. No stone."})
    assert compare(facts_of({"kidney_left": "Possible mass."}), true)["presence"] == {"renal_mass": [0, 0, 1]}
    assert contradictions(facts_of({"kidney_left": "No mass. There is a stone. No cyst."}), true) == (2, 3)


def test_a_report_against_itself_is_perfect_and_silence_is_nothing() -> None:
    scores = factuality(TEXTS, TEXTS, WHO).scores(draws=20)
    for name, (value, low, high) in scores.items():
        assert (value, low, high) == ((0, 0, 0) if name == "contradicted" else (1, 1, 1))
    silent = factuality([{} for _ in TEXTS], TEXTS, WHO).scores(draws=20)
    assert silent["presence micro"] == (0, 0, 0) and math.isnan(silent["contradicted"][0])


def test_micro_and_macro_equal_those_of_another_library() -> None:
    others = TEXTS[1:] + TEXTS[:1]
    scores = factuality(others, TEXTS, WHO).scores(draws=5)
    said, true = [facts_of(t).present for t in others], [facts_of(t).present for t in TEXTS]
    keys = sorted(set().union(*true))
    a, b = (np.array([[k in f for k in keys] for f in rows]) for rows in (true, said))
    assert scores["presence micro"][0] == pytest.approx(f1_score(a, b, average="micro"), abs=1e-12)
    assert scores["presence macro"][0] == pytest.approx(f1_score(a, b, average="macro"), abs=1e-12)


def test_intervals_are_those_of_the_plain_bootstrap_by_patient() -> None:
    others, who = TEXTS[1:] + TEXTS[:1], [f"P{k // 2:02d}" for k in range(40)]  # two studies a patient
    found = factuality(others, TEXTS, who)
    said, true = [facts_of(t) for t in others], [facts_of(t) for t in TEXTS]

    def micro(rows: np.ndarray) -> float:
        tp = sum(len(said[r].sided & true[r].sided) for r in rows)
        return 2 * tp / sum(len(said[r].sided) + len(true[r].sided) for r in rows)

    value, low, high = found.scores(draws=60, seed=3)["side micro"]
    assert value == pytest.approx(micro(np.arange(40)))
    assert (low, high) == pytest.approx(bootstrap(micro, who, n=60, seed=3))


def test_differences_are_paired() -> None:
    one, two = factuality(TEXTS, TEXTS, WHO), factuality(TEXTS[1:] + TEXTS[:1], TEXTS, WHO)
    assert one.less(one, draws=30)["side micro"] == (0, 0, 0)
    gain, own, other = one.less(two, draws=200), one.scores(draws=200), two.scores(draws=200)
    assert gain["side micro"][0] == pytest.approx(own["side micro"][0] - other["side micro"][0])
    assert gain["side micro"][1] > 0
    with pytest.raises(ConfigError, match="same patients"):
        one.less(factuality(TEXTS[:2], TEXTS[:2], WHO[:2]))


def test_odd_input_is_refused() -> None:
    for drafts, reports, who in (([], [], []), (TEXTS, TEXTS[:3], WHO)):
        with pytest.raises(ConfigError, match="give one of each"):
            factuality(drafts, reports, who)
    assert math.isnan(f1(np.array([0, 0, 0])))
