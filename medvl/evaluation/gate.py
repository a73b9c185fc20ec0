"""May a new bundle take the place of the one in use? Both answer the same held-out patients, and a policy decides.

Every check must pass, so no level is divided among them: a bundle that is too bad in one respect passes with at most the chance
of that one check, whatever the others do (intersection-union test, Berger 1982).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvl import __version__
from medvl.errors import ConfigError, did_you_mean
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.gate_checks import (
    answer_checks,
    calibration_checks,
    finding_checks,
    pairs_of,
    reading_check,
    retrieval_checks,
    subgroup_checks,
    survival_check,
)
from medvl.evaluation.gate_policy import GatePolicy
from medvl.evaluation.gate_rows import Check, Judge
from medvl.evaluation.intervals import Draws
from medvl.evaluation.leaks import leaks
from medvl.evaluation.protocol import Protocol, ZeroShot
from medvl.evaluation.results import Subject, check, label_hash
from medvl.evaluation.second import aligned
from medvl.evaluation.tasks import Setting
from medvl.records import RESEARCH_USE

SCHEMA = "medvl.gate/1"
ENOUGH = 0.5


@dataclass(frozen=True)
class Ground:
    """One reason of a decision: its code, a sentence for a person, and whether it stops the bundle."""

    code: str
    sentence: str
    fails: bool


@dataclass(frozen=True, eq=False)
class GateResult:
    """A decision and all it rests on.

    Args:
        passed: whether the new bundle may be promoted.
        grounds: why, the failing ones first; checks: every number.
        record: the whole as plain values for JSON.
    """

    passed: bool
    grounds: tuple[Ground, ...]
    checks: tuple[Check, ...]
    record: Mapping[str, Any]


def decide(before: Subject, after: Subject, policy: GatePolicy, training: Mapping[str, Embedded] | None = None) -> GateResult:
    """Judge the model of `after` against that of `before` on the patients that both embedded.

    Args:
        before: the bundle in use, with what `medvl embed` made of the patients.
        after: the bundle that would take its place, with the same patients.
        policy: the rules.
        training: patients that the new bundle learned from, by name, to look for leaks in.

    Raises:
        ConfigError: a cohort is empty, of another split or embedded by another bundle, labels differ, or the policy names a
            finding that the old bundle does not know.
    """
    protocol = policy.protocol(label_source(policy, before.table))
    for subject in (before, after):
        check(protocol, subject)
    known = [f.key for f in before.model.findings.findings]
    for key in (*policy.findings.margins, *policy.findings.may_go):
        if key not in known:
            raise ConfigError(f"policy {policy.name} names finding {key}; {did_you_mean(key, known)}")
    one, two = aligned(before.table, after.table)
    found = leaks(after.table, training or {}, policy.leaks)
    grounds = [*_cohort_grounds(policy, before.table, after.table, one), *_leak_grounds(found)]
    checks: list[Check] = []
    if one.patients.index.nunique() >= policy.minimum.patients:
        draws = Draws(one.rows["patient_id"], policy.draws, policy.seed)
        settings = [Setting(protocol, t, s.model, draws) for t, s in ((one, before), (two, after))]
        checks, more = _measure(settings[0], settings[1], policy)
        grounds += more
    labels = {f.key: f.label for f in before.model.findings.findings}
    grounds = sorted(grounds + _grounds(checks, labels, policy), key=lambda g: not g.fails)
    passed = bool(checks) and not any(g.fails for g in grounds)
    if passed:
        grounds.insert(0, Ground("all_checks_passed", f"Every check of policy {policy.name} passed.", False))
    told = _record(before, after, policy, protocol, one) | {"labels_of": labels, "leaks": found}
    told |= {"reasons": [vars(g) for g in grounds], "checks": [c.as_dict() for c in checks]}
    return GateResult(passed, tuple(grounds), tuple(checks), {"schema": SCHEMA, "passed": passed, **told})


def label_source(policy: GatePolicy, table: Embedded) -> Any:
    """What counts as right: the truth where it is known at least half as often as reports say something, else what they say.

    Labels that a table or a clinician gave stand above the report's in `said` too, so that a few of them are not lost.
    """
    if policy.labels != "auto":
        return policy.labels
    return "truth" if (table.truth >= 0).sum() >= max(1, ENOUGH * (table.said >= 0).sum()) else "report"


def _measure(before: Setting, after: Setting, policy: GatePolicy) -> tuple[list[Check], list[Ground]]:
    judge = Judge(before.draws, policy.level)
    task = next(t for t in before.protocol.tasks if isinstance(t, ZeroShot))
    pairs, lost = pairs_of(before, after, task, policy.minimum.shared)
    checks = finding_checks(pairs, judge, policy)
    checks += retrieval_checks(before, after, judge, policy)
    survived = survival_check(before, after, judge, policy)
    checks += [survived] if survived else []
    checks += calibration_checks(pairs, judge, policy)
    checks += [reading_check(before, after, judge, policy), *answer_checks(pairs, judge, policy)]
    checks += subgroup_checks(after.table.patients, pairs, judge, policy)
    missed = [key for key in lost if key not in policy.findings.may_go]
    grounds = (
        [Ground("finding_lost", f"The new bundle does not answer {', '.join(missed)}, or for far fewer regions.", True)]
        if missed
        else []
    )
    if policy.calibration.refreshed and _stale(before, after):
        why = "Scores have changed, but every calibration is still that of the old bundle: calibrate on validation patients."
        grounds.append(Ground("calibration_stale", why, True))
    mean = checks[0]
    wanted = policy.primary.improvement
    if wanted != "none" and mean.gain is not None and not (mean.gain >= 0 if wanted == "estimate" else mean.verdict == "better"):
        grounds.append(Ground("no_improvement", f"The mean AUROC is not {_IMPROVED[wanted]} that of the old bundle.", True))
    return checks, grounds


_IMPROVED = {"estimate": "at least", "significant": "shown to be above"}


def _stale(before: Setting, after: Setting) -> bool:
    """Whether scores moved and no calibration did."""
    old, new = before.model.calibrations, after.model.calibrations
    shared = [k for k in old if k in new and k in before.table.findings and k in after.table.findings]
    columns = [(before.table.margins[:, before.table.column(k)], after.table.margins[:, after.table.column(k)]) for k in shared]
    moved = any(not np.allclose(a, b, atol=1e-5, equal_nan=True) for a, b in columns)
    return bool(shared) and moved and all(old[k] == new[k] for k in shared)


def _cohort_grounds(policy: GatePolicy, before: Embedded, after: Embedded, shared: Embedded) -> list[Ground]:
    out = []
    n, least = shared.patients.index.nunique(), policy.minimum.patients
    if n < least:
        out.append(Ground("too_few_patients", f"{n} held-out patients; {least} are needed before anything is concluded.", True))
    share = len(shared) / max(len(before), len(after))
    if share < policy.minimum.shared:
        why = f"Only {share:.0%} of the regions are in both embedded cohorts; embed the same patients with both bundles."
        out.append(Ground("different_cohorts", why, True))
    return out


def _leak_grounds(found: Mapping[str, Any]) -> list[Ground]:
    if found["found"]:
        why = f"Held-out cases are in {' and '.join(found['splits'])} too; the new bundle may have learned them."
        return [Ground("leak", why, True)]
    if found["splits"]:
        return []
    return [Ground("leaks_not_looked_for", "No training patients were given, so leaks were not looked for.", False)]


def _grounds(checks: list[Check], labels: Mapping[str, str], policy: GatePolicy) -> list[Ground]:
    """A sentence for each check that fails or is uncertain, and one for those that could not be made."""
    out = []
    for row in checks:
        what = labels.get(row.what, row.what)
        if row.failed:
            code = "primary_not_shown" if row.part == "primary" else f"{row.part}_worse"
            code = f"{row.part}_uncertain" if row.verdict == "inconclusive" and row.part != "primary" else code
            out.append(Ground(code, _sentence(row, what), True))
        elif row.verdict == "inconclusive" and row.rule != "harm":
            out.append(Ground(f"{row.part}_uncertain", _sentence(row, what), False))
    open_ones = [row.what for row in checks if row.part == "subgroup" and row.verdict == "inconclusive"]
    if open_ones:
        why = f"Too few patients to rule out harm of {policy.subgroups.margin:g} in {'; '.join(open_ones)}."
        out.append(Ground("subgroup_uncertain", why, False))
    unknown = [labels.get(row.what, row.what) for row in checks if row.verdict == "not assessed" and not row.failed]
    if unknown:
        out.append(Ground("not_assessed", f"Not assessed: {'; '.join(dict.fromkeys(unknown))}.", False))
    return out


def _sentence(row: Check, what: str) -> str:
    if row.gain is None or row.low is None or row.high is None or row.before is None or row.after is None:
        return f"{what}, {row.metric}: {row.note}."
    told = f"{what}, {row.metric}: {row.before:.3f} before, {row.after:.3f} after, gain {row.gain:+.3f}"
    told += f" [{row.low:+.3f}, {row.high:+.3f}]; a loss of {row.margin:g} "
    ends = {"worse": "is shown to be exceeded", "inconclusive": "can neither be ruled out nor shown"}
    end = ends.get(row.verdict, "is ruled out")
    if row.verdict == "inconclusive" and row.gain <= -(row.margin or 0):
        end += ", and the difference itself is beyond it"
    return f"{told[0].upper()}{told[1:]}{end}."


def _record(before: Subject, after: Subject, policy: GatePolicy, protocol: Protocol, shared: Embedded) -> dict[str, Any]:
    task = next(t for t in protocol.tasks if isinstance(t, ZeroShot))
    return {
        "software": f"medvl {__version__}",
        "use": RESEARCH_USE,
        "before": {"name": before.model.name, "sha256": before.model.sha256, "source": dict(before.table.source)},
        "after": {"name": after.model.name, "sha256": after.model.sha256, "source": dict(after.table.source)},
        "policy": {"hash": policy.hash, **policy.model_dump(mode="json")},
        "cohort": {
            "patients": int(shared.patients.index.nunique()),
            "regions": len(shared),
            "only_before": len(before.table) - len(shared),
            "only_after": len(after.table) - len(shared),
            "labels": task.labels,
            "labels_sha256": label_hash(protocol, shared),
        },
    }
