"""The checks of a gate: findings and their mean, retrieval, survival, calibration, answers, subgroups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.evaluation.gate_policy import GatePolicy
from medvl.evaluation.gate_rows import Check, Judge, Pair, counts
from medvl.evaluation.metrics import average_of, harrell_of
from medvl.evaluation.protocol import Retrieval, Survival, ZeroShot
from medvl.evaluation.subgroups import levels, order_of
from medvl.evaluation.task_retrieval import patient_labels, patient_vectors, per_query
from medvl.evaluation.task_survival import outcomes
from medvl.evaluation.tasks import Setting, scored

Array = NDArray[np.float64]
PRIMARY = "mean of the findings"


def pairs_of(before: Setting, after: Setting, task: ZeroShot, shared: float) -> tuple[list[Pair], list[str]]:
    """Every finding that both answer, on the regions that both answered; and those that the new bundle does not answer.

    One that it answers for less than the share `shared` of the regions that the old bundle answers is among the latter.

    Raises:
        ConfigError: the two cohorts hold different labels.
    """
    pairs, lost = [], []
    for key in before.table.findings:
        if key not in before.model.calibrations:
            continue
        if key not in after.model.calibrations or key not in after.table.findings:
            lost.append(key)
            continue
        one, two = scored(before, task, key), scored(after, task, key)
        _, i, j = np.intersect1d(one.rows, two.rows, return_indices=True)
        if len(i) < shared * len(one.rows):
            lost.append(key)
            continue
        if not np.array_equal(one.labels[i], two.labels[j]):
            raise ConfigError(f"labels of {key} differ between the two embedded cohorts; embed one cohort with both bundles")
        scores = (one.probability[i], two.probability[j], one.verdicts[i], two.verdicts[j])
        pairs.append(Pair(key, one.labels[i], one.patients[i], *scores))
    return pairs, lost


def finding_checks(pairs: Sequence[Pair], judge: Judge, policy: GatePolicy) -> list[Check]:
    """The mean AUROC first, then each finding."""
    rules, least = policy.findings, policy.minimum
    out, measured = [], []
    for pair in pairs:
        told = Check("finding", pair.key, "AUROC", **counts(pair))
        if not pair.enough(least.present, least.absent):
            note = f"fewer than {least.present} present or {least.absent} absent"
            out.append(Check("finding", pair.key, "AUROC", **counts(pair), note=note))
            continue
        areas = judge.aurocs(pair)
        measured.append(areas)
        out.append(judge.check(told, areas, rules.margins.get(pair.key, rules.margin), rules.inconclusive))
    n = len({str(who) for pair in pairs for who in pair.patients})
    mean = Check("primary", PRIMARY, "AUROC", n=n, failed=True, note="no finding has enough present and absent regions")
    if measured:
        told = Check("primary", PRIMARY, "AUROC", n=n)
        mean = judge.check(told, judge.mean(measured), policy.primary.margin, "shown")
    return [mean, *out]


def calibration_checks(pairs: Sequence[Pair], judge: Judge, policy: GatePolicy) -> Iterator[Check]:
    """Brier score, calibration error and mean probability: their means by the policy, each finding where harm is shown."""
    rules, least = policy.calibration, policy.minimum
    kept = [pair for pair in pairs if pair.enough(least.present, least.absent)]
    if not kept:
        return
    measured = {
        "Brier score": ([judge.briers(pair) for pair in kept], rules.brier, False),
        "calibration error": ([judge.errors(pair, rules.bins) for pair in kept], rules.ece, True),
        "calibration in the large": ([judge.gaps(pair) for pair in kept], rules.in_the_large, True),
    }
    n = len({str(who) for pair in kept for who in pair.patients})
    for metric, (found, margin, basic) in measured.items():
        told = Check("calibration", PRIMARY, metric, n=n)
        yield judge.check(told, judge.mean(found), margin, rules.inconclusive, lower=True, basic=basic)
    for metric, (found, margin, basic) in measured.items():
        for pair, values in zip(kept, found, strict=True):
            told = Check("calibration", pair.key, metric, **counts(pair))
            yield judge.check(told, values, margin, "harm", lower=True, basic=basic)


def reading_check(before: Setting, after: Setting, judge: Judge, policy: GatePolicy) -> Check:
    """Share of regions read: a bundle that gives up on hard ones is not measured on them, and would look better for it."""
    who = before.table.rows["patient_id"].to_numpy(dtype=str)
    one, two = (judge.draws.values(average_of(s.table.usable.astype(float)), who) for s in (before, after))
    told = Check("answers", "all regions", "share read", n=len(who))
    return judge.check(told, (one, two), policy.answers.read, policy.answers.inconclusive)


def answer_checks(pairs: Sequence[Pair], judge: Judge, policy: GatePolicy) -> Iterator[Check]:
    """Answers left undecided, and how often answers are right; an undecided one counts as half, as a guess would."""
    rules, least = policy.answers, policy.minimum
    kept = [pair for pair in pairs if pair.enough(least.present, least.absent)]
    if not kept:
        return
    n = len({str(name) for pair in kept for name in pair.patients})
    told = Check("answers", PRIMARY, "share undecided", n=n)
    found = judge.mean([judge.undecided(pair) for pair in kept])
    yield judge.check(told, found, rules.undecided, rules.inconclusive, lower=True)
    told = Check("answers", PRIMARY, "balanced accuracy", n=n)
    yield judge.check(told, judge.mean([judge.accuracies(pair) for pair in kept]), rules.accuracy, rules.inconclusive)


def retrieval_checks(before: Setting, after: Setting, judge: Judge, policy: GatePolicy) -> Iterator[Check]:
    """Mean reciprocal rank of scan to report and back; not assessed where fewer than the minimum of patients have both."""
    rules, metric = policy.retrieval, "mean reciprocal rank"
    ways = {"scan to report": (0, 1), "report to scan": (1, 0)}
    (first, *one, _), (second, *two, _) = (patient_vectors(s.table) for s in (before, after))
    who, i, j = np.intersect1d(first, second, return_indices=True)
    least = policy.minimum.patients
    if len(who) < least:
        note = f"{len(who)} patients have scan and report; {least} are needed"
        lost = len(first) >= least
        yield from (Check("retrieval", name, metric, n=len(who), failed=lost, note=note) for name in ways)
        return
    sides = [(np.asarray(side[0])[at], np.asarray(side[1])[at]) for side, at in ((one, i), (two, j))]
    labels, size = patient_labels(before.table, who), min(rules.gallery, len(who))
    task = Retrieval(type="retrieval", gallery=rules.gallery)
    for name, (ask, answer) in ways.items():
        ranks = [per_query(side[ask], side[answer], labels, task, size, policy.seed)["median_rank"] for side in sides]
        values = (judge.draws.values(average_of(1 / ranks[0]), who), judge.draws.values(average_of(1 / ranks[1]), who))
        yield judge.check(Check("retrieval", name, metric, n=len(who)), values, rules.margin, rules.inconclusive)


def survival_check(before: Setting, after: Setting, judge: Judge, policy: GatePolicy) -> Check | None:
    """Concordance of the endpoint of both; None where the old bundle predicts none."""
    old, new = before.model.survival, after.model.survival
    if old is None:
        return None
    metric = "Harrell's C"
    if new is None or new.endpoint != old.endpoint:
        return Check("survival", old.endpoint, metric, failed=True, note="the new bundle does not predict it")
    task = Survival(type="survival", endpoint=old.endpoint, time=policy.survival.time, event=policy.survival.event)
    if lacking := [c for c in (task.time, task.event) if c not in before.table.patients or c not in after.table.patients]:
        return Check("survival", old.endpoint, metric, note=f"the cohort does not tell {' and '.join(lacking)}")
    one, two = outcomes(before, task), outcomes(after, task)
    who, i, j = np.intersect1d(one.patients, two.patients, return_indices=True)
    events = int(one.event[i].sum())
    told = Check("survival", old.endpoint, metric, n=len(who), present=events)
    if events < policy.minimum.events:
        note = f"{events} events; {policy.minimum.events} are needed"
        return Check("survival", old.endpoint, metric, n=len(who), present=events, note=note)
    ours = [judge.draws.values(harrell_of(one.time[i], one.event[i], risk), who) for risk in (one.risk[i], two.risk[j])]
    return judge.check(told, (ours[0], ours[1]), policy.survival.margin, policy.survival.inconclusive)


def subgroup_checks(patients: pd.DataFrame, pairs: Sequence[Pair], judge: Judge, policy: GatePolicy) -> Iterator[Check]:
    """Mean AUROC in each group of patients over the findings that have enough regions there."""
    for column in policy.subgroups.columns:
        label = column.label or column.column
        try:
            groups = levels(patients, column)
        except ValueError as error:
            yield Check("subgroup", label, "AUROC", note=str(error))
            continue
        group_of = {str(who): str(name) for who, name in groups.items()}
        if len(set(group_of.values())) == 1:
            yield Check("subgroup", label, "AUROC", n=len(group_of), note=f"one group only: {next(iter(group_of.values()))}")
            continue
        for name in order_of(groups, column, patients):
            yield _group(f"{label}: {name}", name, group_of, pairs, judge, policy)


def _group(what: str, name: str, group_of: Mapping[str, str], pairs: Sequence[Pair], judge: Judge, policy: GatePolicy) -> Check:
    least = policy.minimum.subgroup
    parts = [pair.take(np.array([group_of[str(who)] == name for who in pair.patients], dtype=bool)) for pair in pairs]
    kept = [part for part in parts if part.enough(least, least)]
    n = sum(group == name for group in group_of.values())
    if not kept:
        return Check("subgroup", what, "mean AUROC", n=n, note=f"no finding has {least} present and {least} absent here")
    told = Check("subgroup", what, f"mean AUROC of {len(kept)}", n=n)
    return judge.check(told, judge.mean_aurocs(kept), policy.subgroups.margin, "harm")
