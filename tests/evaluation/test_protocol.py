"""A protocol is data with a hash; what it finds is right, complete and made without test labels."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from lifelines.utils import concordance_index
from pretend import ENDPOINT, PROTOCOL, cohort, model
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score
from sksurv.metrics import brier_score, concordance_index_ipcw, cumulative_dynamic_auc, integrated_brier_score
from sksurv.util import Surv

from medvl.errors import ConfigError
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.estimates import interval
from medvl.evaluation.intervals import Draws, bootstrap
from medvl.evaluation.metrics import auroc, auroc_of, harrell_of
from medvl.evaluation.protocol import load_protocol
from medvl.evaluation.report.build import document
from medvl.evaluation.report.document import Picture
from medvl.evaluation.results import Beside, Subject, evaluate
from medvl.evaluation.task_retrieval import galleries, patient_vectors

FOLDER = Path(__file__).parents[2] / "configs" / "protocols"
BUILT_IN = [FOLDER / "phantom-held-out.yaml", FOLDER / "reports-held-out.yaml"]


SURVIVAL: dict[str, Any] = {"type": "survival", "endpoint": ENDPOINT}


def told(table: Embedded, **changes: Any) -> dict[str, Any]:
    return evaluate(load_protocol(PROTOCOL, changes), Subject(model(), table))


@pytest.fixture(scope="module")
def first() -> dict[str, Any]:
    return told(cohort())


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda p: p.stem)
def test_built_in_protocols_load(path: Path) -> None:
    assert load_protocol(path).name == path.stem


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"drawz": 100}, "unknown key drawz; did you mean draws?"),
        ({"minimum": {"event": 3}}, "unknown key minimum.event; did you mean events?"),
        ({"tasks": [{"type": "retrieval", "galery": 9}]}, "galery; did you mean gallery?"),
        ({"tasks": [{"type": "zeroshot", "labels": "truth"}]}, "no task of type zeroshot; did you mean zero_shot?"),
        ({"tasks": []}, "tasks"),
        ({"tasks": [{"type": "grounding"}, {"type": "grounding"}]}, "grounding stands twice"),
        ({"tasks": [SURVIVAL, SURVIVAL]}, "survival stands twice; give each endpoint a name of its own"),
        ({"tasks": [SURVIVAL | {"name": "OS"}, SURVIVAL | {"name": "DSS"}]}, "event event stands twice"),
        ({"tasks": [SURVIVAL | {"name": "O S"}]}, "tasks.0.survival.name"),
        ({"subgroups": [{"column": "age", "bins": [70, 50]}]}, "bins must rise"),
        ({"draws": 5}, "draws"),
    ],
)
def test_what_is_wrong_in_a_protocol_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
        load_protocol(PROTOCOL, change)


def test_endpoints_stand_side_by_side_under_names_of_their_own(first: dict[str, Any]) -> None:
    table = cohort()
    table.patients["dss_event"] = table.patients["event"] & (table.patients["sex"] == "F")
    later = [
        SURVIVAL | {"name": "DSS", "endpoint": "disease-specific survival", "event": "dss_event"},
        SURVIVAL | {"name": "OS", "beside": ["age_years"]},
    ]
    found = told(table, tasks=later)
    assert list(found["tasks"]) == ["DSS", "OS"]
    assert found["tasks"]["OS"] == first["tasks"]["survival"]
    assert found["tasks"]["DSS"]["na"] == f"the bundle predicts {ENDPOINT}; no other endpoint is judged by it"
    assert found["subgroups"][0]["groups"][0]["concordance"] == first["subgroups"][0]["groups"][0]["concordance"]
    titles = [section.title for section in document(found).sections]
    assert {"Survival: disease-specific survival", f"Survival: {ENDPOINT}"} <= set(titles)
    names = [b.name for section in document(found).sections for b in section.blocks if isinstance(b, Picture)]
    assert len(names) == len(set(names))
    assert "survival-os" in names
    assert (
        load_protocol(PROTOCOL, {"tasks": [later[1]]}).hash == load_protocol(PROTOCOL, {"tasks": [later[1] | {"name": "x"}]}).hash
    )


def test_hash_is_of_what_is_asked() -> None:
    one = load_protocol(PROTOCOL)
    assert load_protocol(dict(reversed(PROTOCOL.items())), {"name": "x", "summary": "y"}).hash == one.hash
    assert load_protocol(PROTOCOL, {"draws": 300}).hash != one.hash


def test_hash_of_labels_sees_labels_only(first: dict[str, Any]) -> None:
    table = cohort()
    turned = table.take(np.arange(len(table))[::-1])
    assert told(turned)["hashes"] == first["hashes"]
    assert told(replace(table, margins=table.margins + 1))["hashes"] == first["hashes"]
    truth = table.truth.copy()
    truth[0, 0] = 1 - abs(truth[0, 0])
    assert told(replace(table, truth=truth))["hashes"]["labels"] != first["hashes"]["labels"]


def test_findings_agree_with_scikit_learn(first: dict[str, Any]) -> None:
    table = cohort()
    for j, key in enumerate(table.findings):
        use = (table.rows["reason"] == "").to_numpy() & (table.truth[:, j] >= 0)
        y, s = table.truth[use, j], table.margins[use, j]
        found = first["tasks"]["zero_shot"]["findings"][key]
        assert found["auroc"]["value"] == pytest.approx(roc_auc_score(y, s), abs=1e-4)
        assert found["average_precision"]["value"] == pytest.approx(average_precision_score(y, s), abs=1e-4)
        p = 1 / (1 + np.exp(-s.astype(np.float64)))
        decided = (p <= 0.45) | (p >= 0.55)
        assert found["sensitivity"]["value"] == pytest.approx((p[decided & (y == 1)] >= 0.5).mean(), abs=1e-4)
        assert found["specificity"]["value"] == pytest.approx((p[decided & (y == 0)] < 0.5).mean(), abs=1e-4)
        assert found["undecided"]["value"] == pytest.approx(1 - decided.mean(), abs=1e-4)
        low, high = found["auroc"]["ci"]
        assert low < found["auroc"]["value"] < high


def test_every_region_is_measured_or_listed(first: dict[str, Any]) -> None:
    table = cohort()
    for j, key in enumerate(table.findings):
        found = first["tasks"]["zero_shot"]["findings"][key]
        assert found["n"] + sum(e["n"] for e in found["excluded"]) == found["eligible"] == len(table)
        gone = {e["reason"]: e["n"] for e in found["excluded"]}
        assert gone["unanswered"] == (table.truth[:, j] < 0).sum()
        known = table.truth[:, j] >= 0
        assert gone["region_incomplete"] == ((table.rows["reason"] == "region_incomplete") & known).sum()
    kidney = first["cohort"]["kinds"]["kidney"]
    assert kidney["read"] + sum(kidney["not_read"].values()) == kidney["regions"] == 160


def test_no_threshold_and_no_verdict_depends_on_test_labels(first: dict[str, Any]) -> None:
    table, rng = cohort(), np.random.default_rng(5)
    known = table.truth >= 0
    shuffled, said = table.truth.copy(), table.said.copy()
    for j in range(shuffled.shape[1]):
        shuffled[known[:, j], j] = rng.permutation(shuffled[known[:, j], j])
        said[:, j] = rng.permutation(said[:, j])
    patients = table.patients.copy()
    patients[["time_days", "event"]] = patients[["time_days", "event"]].sample(frac=1, random_state=1).to_numpy()
    patients["event"] = patients["event"].astype(bool)
    again = told(replace(table, truth=shuffled, said=said, patients=patients))
    for key, before in first["tasks"]["zero_shot"]["findings"].items():
        after = again["tasks"]["zero_shot"]["findings"][key]
        for name in ("operating_point", "verdicts", "verdicts_sha256"):
            assert after[name] == before[name]
        assert abs(after["auroc"]["value"] - 0.5) < abs(before["auroc"]["value"] - 0.5)
    groups = [r["tasks"]["survival"]["groups"] for r in (first, again)]
    assert groups[0]["cuts"] == groups[1]["cuts"]
    assert [c["patients"] for c in groups[0]["curves"]] == [c["patients"] for c in groups[1]["curves"]]
    assert again["hashes"]["labels"] != first["hashes"]["labels"]


def test_weighted_draws_are_repeated_rows() -> None:
    rng = np.random.default_rng(3)
    who = np.repeat([f"P{i}" for i in range(30)], 2)
    y, s = (rng.random(60) < 0.4).astype(int), rng.normal(size=60).round(1)
    draws = Draws(who, 40, 1)
    weights = draws.weights(who)
    time, event = rng.integers(1, 9, 60).astype(float), rng.random(60) < 0.7
    areas, cs = draws.values(auroc_of(y, s), who), draws.values(harrell_of(time, event, s), who)
    for b in (0, 1, 17, 40):
        rows = np.repeat(np.arange(60), weights[b].astype(int))
        assert areas[b] == pytest.approx(auroc(y[rows], s[rows]))
        assert cs[b] == pytest.approx(concordance_index(time[rows], -s[rows], event[rows]), abs=1e-12)
    ours, theirs = interval(Draws(who, 4000).values(auroc_of(y, s), who)[1:]), bootstrap(auroc_of(y, s), who, n=4000)
    assert ours == pytest.approx(theirs, abs=0.015)


def test_survival_agrees_with_lifelines(first: dict[str, Any]) -> None:
    table, head = cohort(), model().survival
    assert head is not None
    known = table.patients
    risk = [
        head.risk({p.at[i, "region"]: table.embedding[i] for i in p.index if table.usable[i]}, None)
        for _, p in table.rows.groupby("patient_id")
    ]
    found = first["tasks"]["survival"]
    assert found["concordance"]["model"]["value"] == pytest.approx(
        concordance_index(known["time_days"], -np.array(risk), known["event"]), abs=1e-4
    )
    assert found["endpoint"] == ENDPOINT
    assert sum(c["patients"] for c in found["groups"]["curves"]) == found["patients"] == 80


def test_accuracy_at_fixed_times_has_intervals_a_reference_and_agrees_with_scikit_survival() -> None:
    table, head = cohort(), model().survival
    assert head is not None
    tasks = [{"type": "survival", "endpoint": ENDPOINT, "beside": ["age_years"]}]
    found = told(table, draws=100, tasks=tasks)["tasks"]["survival"]
    use = {p: rows.index[table.usable[rows.index]] for p, rows in table.rows.groupby("patient_id")}
    risk = np.array([head.risk({table.rows.at[i, "region"]: table.embedding[i] for i in rows}, None) for rows in use.values()])
    ages = table.patients["age_years"].to_numpy()
    t, e, at = table.patients["time_days"].to_numpy(), table.patients["event"].to_numpy(dtype=bool), [365.0, 1095.0, 1825.0]
    assert [len(use), found["patients"]] == [80, 80]
    survival = np.exp(-head.baseline * np.exp(risk)[:, None])
    draws = Draws(table.patients.index, 100, 0)

    def measured(i: np.ndarray) -> dict[str, Any]:
        y, curve = Surv.from_arrays(e[i], t[i]), KaplanMeierFitter().fit(t[i], e[i])
        plain = np.tile(curve.survival_function_at_times(at), (len(i), 1))
        own, other = (brier_score(y, y, s, at)[1] for s in (survival[i], plain))
        return {
            "auc": [cumulative_dynamic_auc(y, y, risk[i], [d])[0][0] for d in at],
            "uno": concordance_index_ipcw(y, y, risk[i])[0],
            "gain": concordance_index_ipcw(y, y, risk[i])[0] - concordance_index_ipcw(y, y, ages[i])[0],
            "brier": own,
            "difference": own - other,
            "ibs": integrated_brier_score(y, y, survival[i], at),
        }

    values = []
    for line in draws.counts:
        with contextlib.suppress(ValueError):
            values.append(measured(np.repeat(np.arange(80), line.astype(int))))
    at_times, whole = [found["at"][str(int(d))] for d in at], measured(np.arange(80))
    pairs = {"brier": [a["brier"] for a in at_times], "difference": [a["brier"]["minus_kaplan_meier"] for a in at_times]}
    pairs |= {
        "auc": [a["auc"] for a in at_times],
        "uno": [found["concordance"]["model"]["uno"]],
        "ibs": [found["integrated_brier"]],
    }
    pairs["gain"] = [found["concordance"]["age_years"]["uno"]["model_minus_this"]]
    for name, estimates in pairs.items():
        assert [x["value"] for x in estimates] == pytest.approx(np.atleast_1d(whole[name]), abs=6e-5), name
        low, high = np.quantile([np.atleast_1d(v[name]) for v in values], [0.025, 0.975], axis=0)
        assert [x["ci"] for x in estimates] == [pytest.approx(ends, abs=6e-5) for ends in zip(low, high, strict=True)], name


def test_a_horizon_without_baseline_or_follow_up_is_na() -> None:
    tasks = [{"type": "survival", "endpoint": ENDPOINT, "horizons_days": [365, 730, 1825]}]
    table = cohort()
    short = table.patients.assign(time_days=table.patients["time_days"].clip(upper=900))
    at = told(replace(table, patients=short), tasks=tasks)["tasks"]["survival"]
    assert "no baseline at 730" in at["at"]["730"]["na"]
    assert "nobody was followed for 1825" in at["at"]["1825"]["na"]
    assert at["at"]["365"]["brier"]["ci"]
    assert at["integrated_brier"]["na"] == "one horizon only"


def test_retrieval_by_shared_findings_agrees_with_scikit_learn(first: dict[str, Any]) -> None:
    table, found = cohort(), first["tasks"]["retrieval"]
    _, images, texts, _ = patient_vectors(table)
    said = table.said.reshape(len(images), -1)
    assert found["labelled"] == (said >= 0).any(1).sum()
    for way, similarity in (("image_to_report", images @ texts.T), ("report_to_image", texts @ images.T)):
        precisions, gains = [], []
        for members, asking in galleries(len(images), found["gallery"], 0):
            for q in members[asking]:
                both, stated = (said[q] == 1) & (said[members] == 1), (said[q] >= 0) & (said[members] >= 0)
                either = ((said[q] == 1) | (said[members] == 1)) & stated
                alike = np.where(either.any(1), both.sum(1) / np.maximum(either.sum(1), 1), stated.any(1))
                if alike.any():
                    gains.append(ndcg_score(alike[None], similarity[q, members][None]))
                if (alike >= 0.5).any():
                    precisions.append(average_precision_score(alike >= 0.5, similarity[q, members]))
        assert found[way]["ndcg_shared_findings"]["value"] == pytest.approx(np.mean(gains), abs=1e-4)
        assert found[way]["map_shared_findings"]["value"] == pytest.approx(np.mean(precisions), abs=1e-4)
        assert found[way]["map_chance"] < found[way]["map_shared_findings"]["ci"][0]


def test_decision_and_survival_curves_have_bands_and_numbers_at_risk(first: dict[str, Any]) -> None:
    for found in first["tasks"]["zero_shot"]["findings"].values():
        low, model_, high = (np.array(found["decision"][name]) for name in ("low", "model", "high"))
        assert (low[:50] < model_[:50]).all()
        assert (model_[:50] < high[:50]).all()
    groups = first["tasks"]["survival"]["groups"]["curves"]
    assert sorted(t for c in groups for t in c["followed"]) == sorted(cohort().patients["time_days"])
    for c in groups:
        assert len(c["censored"]) == c["patients"] - c["events"]
        assert len(c["days"]) == len(c["survival"]) == len(c["low"]) == len(c["high"])


def test_everybody_asks_once_in_a_full_gallery() -> None:
    found = galleries(53, 20, 0)
    assert [len(set(members.tolist())) for members, _ in found] == [20, 20, 20]
    asked = np.concatenate([members[asking] for members, asking in found])
    assert sorted(asked.tolist()) == list(range(53))


def test_what_cannot_be_measured_is_na_with_its_reason() -> None:
    table = cohort()
    truth = table.truth.copy()
    truth[:, 0] = np.where(truth[:, 0] == 1, 0, truth[:, 0])
    patients = table.patients.assign(event=False)
    silent = np.full_like(table.report_embedding, np.nan)
    bare = replace(table, truth=truth, patients=patients, evidence=None, report_embedding=silent)
    found = told(bare)
    tasks = found["tasks"]
    assert tasks["zero_shot"]["findings"]["mass"]["na"].startswith("0 present")
    assert tasks["zero_shot"]["mean_auroc"]["findings"] == 1
    assert tasks["survival"]["na"] == "80 patients and 0 events; at least 20 and 10 are needed"
    assert tasks["retrieval"]["na"].startswith("0 patients")
    assert tasks["retrieval"]["excluded"] == [{"reason": "no_report", "patients": 80}]
    assert "compared no maps" in tasks["grounding"]["na"]
    assert len([w for w in found["warnings"] if "not measured" in w]) == 3
    json.dumps(found, allow_nan=False)


def test_all_answers_right_has_no_interval_of_no_width() -> None:
    table = cohort(40)
    sure = replace(table, margins=np.where(table.truth == 1, 4, -4).astype(np.float32))
    found = told(sure)["tasks"]["zero_shot"]["findings"]["mass"]["sensitivity"]
    assert found["value"] == 1
    assert found["ci"][0] < 0.9
    assert "Wilson" in found["note"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"split": "validation"}, "is for split test; this embedded cohort is of validation"),
        ({"model_sha256": "other"}, "embedded by pretend"),
    ],
)
def test_a_cohort_that_does_not_fit_is_refused(change: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        told(cohort(30, **change))


def test_wanted_way_and_columns_are_checked() -> None:
    with pytest.raises(ConfigError, match="wants crops; this cohort was embedded from scans"):
        told(cohort(30), cohort={"way": "crops"})
    with pytest.raises(ConfigError, match="needs grade of each patient; the cohort tells sex, age_years"):
        told(cohort(30), cohort={"columns": ["grade"]})


def test_an_empty_cohort_is_refused() -> None:
    with pytest.raises(ConfigError, match="is empty"):
        told(cohort(4).take(np.zeros(8, dtype=bool)))


def test_a_bundle_without_survival_says_so() -> None:
    found = evaluate(load_protocol(PROTOCOL), Subject(model(survival=False), cohort(40)))
    assert found["tasks"]["survival"]["na"] == "bundle pretend has no survival model"


def test_a_second_model_is_compared_on_shared_regions() -> None:
    table = cohort()
    worse = cohort(skill=0.3, model_sha256="sha of b").take(np.arange(150))
    found = evaluate(load_protocol(PROTOCOL), Subject(model(), table), Beside(Subject(model("b"), worse)))["comparison"]
    assert found["regions"] == {"shared": 150, "only_first": 10, "only_second": 0}
    rows = {row["what"]: row for row in found["rows"]}
    assert rows["mass"]["difference"]["value"] == pytest.approx(rows["mass"]["first"] - rows["mass"]["second"], abs=2e-4)
    assert rows["mass"]["p_adjusted"] >= rows["mass"]["p"]
    assert "DeLong" in rows["mass"]["method"]
    assert rows[ENDPOINT]["difference"]["value"] == 0
    assert rows[ENDPOINT]["p"] == 1
    other = replace(worse, truth=np.where(worse.truth >= 0, 1 - worse.truth, worse.truth).astype(np.int8))
    with pytest.raises(ConfigError, match="labels of mass differ"):
        evaluate(load_protocol(PROTOCOL), Subject(model(), table), Beside(Subject(model("b"), other)))
