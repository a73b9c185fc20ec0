"""The gate's numbers are those of other software on the same draws, and its decisions those that its policy states."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lifelines.utils import concordance_index
from numpy.typing import NDArray
from pretend import FINDINGS, cohort, model
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score

from medvl.errors import ConfigError
from medvl.evaluation.calibration import Calibration
from medvl.evaluation.comparisons import delong
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.gate import GateResult, decide, label_source
from medvl.evaluation.gate_policy import GatePolicy, load_policy
from medvl.evaluation.gate_report import gate_document, write_gate
from medvl.evaluation.gate_rows import Check, fails, verdict_of
from medvl.evaluation.results import Subject

FILE = Path(__file__).parents[2] / "configs" / "gates" / "default.yaml"
BUILT_IN: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
DRAWS = 100


def policy(**changes: Any) -> GatePolicy:
    """The built-in policy with fewer draws and some parts changed."""
    values = {k: {**v, **changes.pop(k, {})} if isinstance(v, dict) else v for k, v in BUILT_IN.items()}
    return load_policy({**values, "draws": DRAWS, **changes})


def refitted(by: float = 1e-6) -> dict[str, Calibration]:
    return dict.fromkeys(FINDINGS, Calibration(1.0, by, 0.5, 0.45, 0.55, 40, 60))


def after_of(table: Embedded, change: Callable[[NDArray[np.float32]], NDArray[np.float32]], **told: Any) -> Subject:
    """A new bundle on the same patients with other scores, calibrated anew."""
    newer = replace(table, margins=change(table.margins.copy()), source={**table.source, "model_sha256": "sha of newer"}, **told)
    return Subject(replace(model("newer"), calibrations=refitted()), newer)


def noisy(size: float, column: int | None = None, seed: int = 5) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    def change(margins: NDArray[np.float32]) -> NDArray[np.float32]:
        noise = size * np.random.default_rng(seed).standard_normal(margins.shape).astype(np.float32)
        if column is not None:
            noise[:, 1 - column] = 0
        return margins + noise

    return change


def pretend(n: int = 300, skill: float = 1.5) -> Subject:
    return Subject(model(), cohort(n, skill=skill))


def judged(size: float = 0.7, n: int = 300, **changes: Any) -> tuple[Subject, Subject, GateResult]:
    before = pretend(n)
    after = after_of(before.table, noisy(size))
    return before, after, decide(before, after, policy(**changes))


def row(result: GateResult, part: str, what: str | None = None, metric: str | None = None) -> Check:
    return next(c for c in result.checks if c.part == part and what in (None, c.what) and metric in (None, c.metric))


def codes(result: GateResult) -> set[str]:
    return {ground.code for ground in result.grounds if ground.fails}


@pytest.fixture(scope="module")
def first() -> tuple[Subject, Subject, GateResult]:
    return judged()


def sampled_rows(who: NDArray[np.str_], everyone: NDArray[np.str_]) -> list[NDArray[np.int64]]:
    """Row numbers of each draw of whole patients, made from the documented rule: multinomial counts, seed 0."""
    names = np.unique(everyone)
    counts = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
    place = {name: k for k, name in enumerate(names)}
    return [np.repeat(np.arange(len(who)), [count[place[w]] for w in who]) for count in counts]


def expected(statistic: Callable[[NDArray[np.int64]], float], draws: list[NDArray[np.int64]], n: int) -> list[float]:
    values = [statistic(rows) for rows in draws]
    return [statistic(np.arange(n)), *np.quantile(values, [0.025, 0.975])]


def seen(before: Subject, after: Subject, column: int) -> tuple[Any, ...]:
    """Labels, both probabilities and patients of the rows that answer a finding."""
    table = before.table
    use = table.usable & (table.truth[:, column] >= 0)
    pair = [1 / (1 + np.exp(-s.table.margins[use, column].astype(float))) for s in (before, after)]
    return table.truth[use, column], pair[0], pair[1], table.rows["patient_id"].to_numpy(dtype=str)[use]


@pytest.mark.parametrize("column", [0, 1])
def test_findings_agree_with_scikit_learn_on_the_same_draws(first: tuple[Subject, Subject, GateResult], column: int) -> None:
    before, after, result = first
    y, one, two, who = seen(before, after, column)
    draws = sampled_rows(who, before.table.rows["patient_id"].to_numpy(dtype=str))
    wanted = expected(lambda r: roc_auc_score(y[r], two[r]) - roc_auc_score(y[r], one[r]), draws, len(y))
    found = row(result, "finding", FINDINGS[column])
    assert [found.gain, found.low, found.high] == pytest.approx(wanted, abs=1e-9)
    assert (found.n, found.present) == (len(y), y.sum())
    assert [found.before, found.after] == pytest.approx([roc_auc_score(y, one), roc_auc_score(y, two)])
    brier = row(result, "calibration", FINDINGS[column], "Brier score")
    wanted = expected(lambda r: brier_score_loss(y[r], one[r]) - brier_score_loss(y[r], two[r]), draws, len(y))
    assert [brier.gain, brier.low, brier.high] == pytest.approx(wanted, abs=1e-6)


def test_mean_of_findings_is_over_the_same_draws(first: tuple[Subject, Subject, GateResult]) -> None:
    before, after, result = first
    everyone = before.table.rows["patient_id"].to_numpy(dtype=str)
    values = []
    for column in (0, 1):
        y, one, two, who = seen(before, after, column)
        draws = sampled_rows(who, everyone)
        values.append([roc_auc_score(y[r], two[r]) - roc_auc_score(y[r], one[r]) for r in draws])
    low, high = np.quantile(np.mean(values, 0), [0.025, 0.975])
    assert [row(result, "primary").low, row(result, "primary").high] == pytest.approx([low, high], abs=1e-9)


def test_intervals_are_about_those_of_delong(first: tuple[Subject, Subject, GateResult]) -> None:
    before, after, result = first
    y, one, two, who = seen(before, after, 0)
    found, by_formula = row(result, "finding", "mass"), delong(y, two, one, who)
    assert found.low == pytest.approx(by_formula.low, abs=0.006)
    assert found.high == pytest.approx(by_formula.high, abs=0.006)


def test_calibration_by_hand(first: tuple[Subject, Subject, GateResult]) -> None:
    before, after, result = first
    y, one, two, who = seen(before, after, 0)
    draws = sampled_rows(who, before.table.rows["patient_id"].to_numpy(dtype=str))
    gap = expected(lambda r: abs((one - y)[r].mean()) - abs((two - y)[r].mean()), draws, len(y))
    found = row(result, "calibration", "mass", "calibration in the large")
    assert [found.gain, found.low, found.high] == pytest.approx([gap[0], 2 * gap[0] - gap[2], 2 * gap[0] - gap[1]], abs=1e-6)
    filled = np.concatenate([np.full(len(part), k) for k, part in enumerate(np.array_split(y, 10))])
    bins = [filled[np.argsort(np.argsort(p))] for p in (one, two)]

    def error(p: Any, of: Any, r: Any) -> float:
        return sum(abs((y - p)[r][of[r] == k].sum()) for k in range(10)) / len(r)

    ece = expected(lambda r: error(one, bins[0], r) - error(two, bins[1], r), draws, len(y))
    found = row(result, "calibration", "mass", "calibration error")
    assert [found.gain, found.low, found.high] == pytest.approx([ece[0], 2 * ece[0] - ece[2], 2 * ece[0] - ece[1]], abs=1e-6)


def test_answers_by_hand(first: tuple[Subject, Subject, GateResult]) -> None:
    before, after, result = first
    shares, accuracies = [], []
    for column in (0, 1):
        y, *scores, _ = seen(before, after, column)
        for p in scores:
            undecided = (p > 0.45) & (p < 0.55)
            shares.append(undecided.mean())
            halves = [balanced_accuracy_score(y, p >= cut) for cut in (0.45, 0.55)]
            accuracies.append(np.mean(halves))
    share, accuracy = (
        row(result, "answers", None, "share undecided"),
        row(result, "answers", None, "balanced accuracy"),
    )
    assert [share.before, share.after] == pytest.approx([np.mean(shares[::2]), np.mean(shares[1::2])])
    assert [accuracy.before, accuracy.after] == pytest.approx([np.mean(accuracies[::2]), np.mean(accuracies[1::2])])
    assert share.gain == pytest.approx(np.mean(shares[::2]) - np.mean(shares[1::2]))


def test_survival_agrees_with_lifelines() -> None:
    before = pretend()
    blurred = before.table.embedding + 0.3 * np.random.default_rng(3).standard_normal(before.table.embedding.shape)
    after = after_of(before.table, lambda margins: margins, embedding=blurred.astype(np.float32))
    found = row(decide(before, after, policy()), "survival")
    patients = before.table.patients
    risks = []
    for subject in (before, after):
        left = subject.table.embedding[::2, 0] * 3.0
        other = subject.table.usable[1::2]
        risks.append(np.where(subject.table.usable[::2], left, np.where(other, 0.0, np.nan)))
    known = np.isfinite(risks[0])
    times, events = patients["time_days"].to_numpy()[known], patients["event"].to_numpy()[known]
    c = [concordance_index(times, -risk[known], events) for risk in risks]
    assert [found.before, found.after] == pytest.approx(c, abs=1e-6)
    assert found.present == events.sum()


def test_subgroups_agree_with_scikit_learn(first: tuple[Subject, Subject, GateResult]) -> None:
    before, after, result = first
    women = before.table.of_patients("sex") == "F"
    gains = []
    for column in (0, 1):
        use = before.table.usable & (before.table.truth[:, column] >= 0) & women
        y = before.table.truth[use, column]
        gains.append(np.subtract(*(roc_auc_score(y, s.table.margins[use, column]) for s in (after, before))))
    found = row(result, "subgroup", "Sex: F")
    assert found.gain == pytest.approx(np.mean(gains))
    assert row(result, "subgroup", "Kernel").note == "the cohort does not tell kernel"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.03, "better"),
        (-0.04, 0.03, "not worse"),
        (-0.04, -0.01, "not worse"),
        (-0.06, 0.01, "inconclusive"),
        (-0.05, 0.2, "inconclusive"),
        (-0.09, -0.06, "worse"),
    ],
)
def test_what_an_interval_says(low: float, high: float, verdict: str) -> None:
    assert verdict_of(low, high, 0.05) == verdict


@pytest.mark.parametrize(
    ("verdict", "gain", "failing"),
    [
        ("not worse", 0.0, set()),
        ("inconclusive", -0.01, {"shown", "fail"}),
        ("inconclusive", -0.06, {"shown", "fail", "estimate"}),
        ("worse", -0.2, {"shown", "fail", "estimate", "tell", "harm"}),
        ("not assessed", 0.0, {"shown"}),
    ],
)
def test_what_stops_a_bundle(verdict: Any, gain: float, failing: set[str]) -> None:
    rules: list[Any] = ["shown", "fail", "estimate", "tell", "harm"]
    assert {rule for rule in rules if fails(verdict, gain, 0.05, rule)} == failing


def test_same_answers_pass() -> None:
    before = pretend(100)
    result = decide(before, after_of(before.table, lambda margins: margins), policy())
    assert result.passed
    assert row(result, "primary").verdict == "not worse"
    assert all(c.gain == 0 for c in result.checks if c.part in ("finding", "retrieval", "survival"))


def test_a_better_bundle_passes_and_is_called_better() -> None:
    before = pretend(300, skill=0.8)
    truth = np.where(before.table.truth < 0, 0.5, before.table.truth).astype(np.float32)
    after = after_of(before.table, lambda margins: margins + 0.5 * (2 * truth - 1))
    result = decide(before, after, policy(primary={"improvement": "significant"}, calibration={"brier": 0.2, "ece": 0.3}))
    assert result.passed
    assert row(result, "primary").verdict == "better"


def test_one_bad_finding_stops_a_bundle() -> None:
    before = pretend(300)
    result = decide(before, after_of(before.table, noisy(9.0, column=1)), policy())
    assert not result.passed
    assert row(result, "finding", "cyst").verdict == "worse"
    assert row(result, "finding", "mass").verdict == "not worse"
    assert {"finding_worse", "primary_not_shown"} <= codes(result)


def test_an_equal_bundle_on_too_few_patients_is_not_shown_to_be_equal() -> None:
    _, _, result = judged(0.7, 60, primary={"margin": 0.003})
    assert row(result, "primary").verdict == "inconclusive"
    assert "primary_not_shown" in codes(result)


def test_improvement_can_be_asked_for(first: tuple[Subject, Subject, GateResult]) -> None:
    before, after, _ = first
    for wanted in ("estimate", "significant"):
        assert "no_improvement" in codes(decide(before, after, policy(primary={"improvement": wanted, "margin": 0.5})))


def test_fewer_patients_than_asked_for_conclude_nothing() -> None:
    _, _, result = judged(0.0, 39)
    assert not result.passed
    assert result.checks == ()
    assert codes(result) == {"too_few_patients"}


def test_calibration_of_the_old_bundle_is_stale() -> None:
    before = pretend(300)
    after = after_of(before.table, noisy(0.1))
    stale = replace(after, model=replace(after.model, calibrations=before.model.calibrations))
    assert "calibration_stale" in codes(decide(before, stale, policy()))
    assert "calibration_stale" not in codes(decide(before, stale, policy(calibration={"refreshed": False})))


def test_overconfident_probabilities_fail() -> None:
    before = pretend(300)
    after = after_of(before.table, lambda margins: margins)
    loud = dict.fromkeys(FINDINGS, Calibration(8.0, 2.0, 0.5, 0.45, 0.55, 40, 60))
    result = decide(before, replace(after, model=replace(after.model, calibrations=loud)), policy())
    assert "calibration_worse" in codes(result)
    assert row(result, "primary").gain == pytest.approx(0, abs=1e-3)  # the order is what it was


def test_a_bundle_that_decides_less_fails() -> None:
    before = pretend(300)
    after = after_of(before.table, lambda margins: margins)
    shy = dict.fromkeys(FINDINGS, Calibration(1.0, 1e-6, 0.5, 0.1, 0.9, 40, 60))
    result = decide(before, replace(after, model=replace(after.model, calibrations=shy)), policy())
    assert codes(result) == {"answers_worse"}


def test_a_bundle_that_reads_less_fails() -> None:
    before = pretend(300)
    rows = before.table.rows.copy()
    rows.loc[rows.index % 5 == 0, "reason"] = "region_incomplete"
    margins = before.table.margins.copy()
    margins[::5] = np.nan
    result = decide(before, after_of(before.table, lambda _: margins, rows=rows), policy())
    assert row(result, "answers", "all regions").verdict == "worse"


def test_a_finding_may_not_get_lost_unless_the_policy_says_so() -> None:
    before = pretend(300)
    after = after_of(before.table, lambda margins: margins)
    without = replace(after, model=replace(after.model, calibrations={"mass": refitted()["mass"]}))
    assert codes(decide(before, without, policy())) == {"finding_lost"}
    assert decide(before, without, policy(findings={"may_go": ["cyst"]})).passed


def test_a_finding_answered_for_fewer_regions_is_lost() -> None:
    before = pretend(300)
    silent = (np.arange(len(before.table))[:, None] % 10 == 0) & np.array([False, True])
    after = after_of(before.table, lambda margins: np.where(silent, np.nan, margins).astype(np.float32))
    assert codes(decide(before, after, policy())) == {"finding_lost"}


def test_a_bundle_that_is_never_sure_of_a_finding_does_not_escape() -> None:
    before = pretend(300)
    after = after_of(before.table, lambda margins: margins)
    shy = refitted() | {"cyst": Calibration(1.0, 1e-6, 0.99, 1e-6, 0.999999, 40, 60)}
    result = decide(before, replace(after, model=replace(after.model, calibrations=shy)), policy())
    assert row(result, "answers", None, "balanced accuracy").verdict == "worse"


def test_retrieval_may_not_get_lost() -> None:
    before = pretend(100)
    after = after_of(before.table, lambda margins: margins, report_embedding=np.full_like(before.table.report_embedding, np.nan))
    assert codes(decide(before, after, policy())) == {"retrieval_worse"}


def test_a_cohort_without_reports_is_judged_by_the_rest() -> None:
    table = pretend(100).table
    before = Subject(model(), replace(table, report_embedding=np.full_like(table.report_embedding, np.nan)))
    result = decide(before, after_of(before.table, lambda margins: margins), policy())
    assert result.passed
    assert row(result, "retrieval").note == "0 patients have scan and report; 40 are needed"


def test_survival_may_not_get_lost() -> None:
    before = pretend(100)
    after = after_of(before.table, lambda margins: margins)
    assert codes(decide(before, replace(after, model=replace(after.model, survival=None)), policy())) == {"survival_worse"}


def test_harm_to_one_group_stops_a_bundle() -> None:
    before = pretend(600)
    old = before.table.of_patients("age_years") >= 80
    change = noisy(12.0)
    after = after_of(before.table, lambda m: np.where(old[:, None], change(m), m))
    wide = {"primary": {"margin": 0.5}, "findings": {"margin": 0.5}}
    result = decide(before, after, policy(**wide, calibration={"brier": 0.5, "ece": 0.5, "in_the_large": 0.5}))
    assert codes(result) == {"subgroup_worse"}
    assert {c.what for c in result.checks if c.failed} == {"Age (years): 80 and above"}


def test_other_patients_are_no_comparison() -> None:
    before = pretend(100)
    half = before.table.take(np.arange(len(before.table)) < 120)
    after = after_of(before.table, lambda margins: margins)
    result = decide(before, Subject(after.model, after.table.take(np.arange(len(half)))), policy())
    assert "different_cohorts" in codes(result)


def test_cases_the_new_bundle_learned_from_stop_it() -> None:
    before = pretend(100)
    after = after_of(before.table, lambda margins: margins)
    result = decide(before, after, policy(), {"train": before.table.take(np.arange(10))})
    assert codes(result) == {"leak"}
    clean = decide(before, after, policy(), {"train": cohort(20, seed=9, offset=5000)})
    assert clean.passed
    assert "leaks_not_looked_for" not in {ground.code for ground in clean.grounds}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"findings": {"margins": {"mas": 0.1}}}, "did you mean mass"),
        ({"findings": {"may_go": ["cists"]}}, "did you mean cyst"),
    ],
)
def test_margins_are_for_findings_of_the_old_bundle(change: dict[str, Any], says: str) -> None:
    before = pretend(60)
    with pytest.raises(ConfigError, match=says):
        decide(before, after_of(before.table, lambda margins: margins), policy(**change))


def test_margin_of_one_finding() -> None:
    before = pretend(300)
    after = after_of(before.table, noisy(9.0, column=1))
    result = decide(before, after, policy(findings={"margins": {"cyst": 0.6}}, primary={"margin": 0.5}))
    assert row(result, "finding", "cyst").verdict == "not worse"


def test_labels_must_be_the_same() -> None:
    before = pretend(60)
    after = after_of(before.table, lambda margins: margins, truth=(1 - np.abs(before.table.truth)).astype(np.int8))
    with pytest.raises(ConfigError, match="labels of mass differ"):
        decide(before, after, policy())


def test_cohort_of_another_bundle_is_refused() -> None:
    before = pretend(60)
    with pytest.raises(ConfigError, match="was embedded by pretend"):
        decide(before, Subject(model("newer"), before.table), policy())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"drawz": 100}, r"unknown key drawz; did you mean draws\?"),
        ({"primary": {"margn": 0.1}}, r"unknown key primary\.margn; did you mean margin\?"),
        ({"primary": {"margin": 0}}, r"primary\.margin"),
        ({"findings": {"inconclusive": "maybe"}}, r"findings\.inconclusive"),
        ({"subgroups": {"columns": [{"colum": "sex"}]}}, r"unknown key subgroups\.columns\.0\.colum; did you mean column\?"),
    ],
)
def test_what_is_wrong_in_a_policy_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        policy(**change)


def test_policy_files(tmp_path: Path) -> None:
    assert load_policy(FILE).name == "default"
    with pytest.raises(ConfigError, match="medvl gate --policy list"):
        load_policy(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="keys and values"):
        load_policy(tmp_path / "list.yaml")
    assert policy(name="other").hash == policy().hash != policy(seed=1).hash


@pytest.fixture(scope="module")
def written(first: tuple[Subject, Subject, GateResult], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gate")
    write_gate(first[2], folder)
    return folder


def test_report_says_what_was_decided(first: tuple[Subject, Subject, GateResult], written: Path) -> None:
    _, _, result = first
    told = json.loads((written / "gate.json").read_text())
    assert told["passed"] is result.passed
    assert told["after"]["sha256"] == "sha of newer"
    assert len(told["checks"]) == len(result.checks)
    text = (written / "gate.md").read_text()
    assert "newer did not pass" in text
    assert "figures/gains.png" in text
    page = (written / "gate.html").read_text()
    assert all(ground.code in page for ground in result.grounds)
    assert "http" not in page.replace("http://www.w3.org", "")
    for name in ("gains", "subgroups"):
        assert (written / "figures" / f"{name}.png").stat().st_size > 10_000


def test_same_gate_writes_the_same_bytes(first: tuple[Subject, Subject, GateResult], written: Path, tmp_path: Path) -> None:
    before, after, _ = first
    write_gate(decide(before, after, policy()), tmp_path)
    for name in ("gate.json", "gate.md", "gate.html"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_report_without_any_number() -> None:
    _, _, result = judged(0.0, 20)
    assert "did not pass" in gate_document(result.record).title


def test_bundle_worse_by_the_margin_seldom_passes() -> None:
    """Of 200 cohorts on which the new bundle is worse by just the margin, about 2.5 % pass the primary check."""
    rng = np.random.default_rng(4)
    n, d = 400, float(np.sqrt(2) * norm.ppf(0.85))
    less = float(np.sqrt(2) * norm.ppf(0.80))
    passed = 0
    for _ in range(200):
        y = (rng.random(n) < 0.4).astype(int)
        shared = rng.standard_normal(n)
        one, two = (s * y + np.sqrt(0.8) * shared + np.sqrt(0.2) * rng.standard_normal(n) for s in (d, less))
        found = delong(y, two, one)
        passed += verdict_of(float(found.low or 0), float(found.high or 0), 0.05) in ("better", "not worse")
    assert passed <= 12


def test_a_few_given_labels_do_not_stand_for_the_whole_cohort(first: tuple[Subject, Subject, GateResult]) -> None:
    table = first[0].table
    few = np.full_like(table.truth, -1)
    few[:3] = table.truth[:3]
    assert label_source(policy(), table) == "truth"
    assert label_source(policy(), replace(table, truth=few)) == "report"
    assert label_source(policy(labels="truth"), replace(table, truth=few)) == "truth"
