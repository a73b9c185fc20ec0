"""A model's answers as drafts need them: from margins, or from the record of a study that was inferred before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from medvl.errors import ConfigError
from medvl.evaluation.calibration import Calibration
from medvl.heads.drafts import Verdict
from medvl.text.prompts import Finding, FindingList

Margin = Callable[[Finding, str], float]
FINDINGS_SCHEMA = "medvl.findings/1"
OWN_REASONS = ("near_threshold", "depends_on_undecided")


def verdicts_of_margins(
    findings: FindingList,
    kinds: Mapping[str, tuple[str, ...]],
    calibration: Mapping[str, Calibration],
    regions: Collection[str],
    margin: Margin,
) -> list[Verdict]:
    """Verdicts on the usable `regions` by the rules of inference.

    A trait is asked only where its finding is not absent, and is undecided where that is.
    """
    found: dict[tuple[str, str], Verdict] = {}
    for finding in findings.findings:
        for region in kinds[finding.region]:
            parent = found.get((finding.given, region)) if finding.given else None
            if finding.key not in calibration or region not in regions or (parent and parent.verdict == "absent"):
                continue
            rule = calibration[finding.key]
            score = float(rule.probability(margin(finding, region)))
            verdict = rule.verdict(score)
            reasons: tuple[str, ...] = ()
            if parent and parent.verdict == "undecided":
                verdict = "undecided"
            elif verdict == "undecided":
                reasons = (f"score {score:.2f} lies between {rule.low:.2f} and {rule.high:.2f}",)
            found[finding.key, region] = Verdict(finding.key, finding.truth, finding.label, region, verdict, score, reasons)
    return list(found.values())


def verdicts_of_record(record: Mapping[str, Any], findings: FindingList) -> list[Verdict]:
    """Verdicts in a study's `findings.json`.

    Raises:
        ConfigError: another schema, or a study that was not done.
    """
    if record.get("schema") != FINDINGS_SCHEMA:
        raise ConfigError(
            f"expected a record of schema {FINDINGS_SCHEMA}, found {record.get('schema')}; give a result of medvl infer"
        )
    if record.get("status") != "done":
        raise ConfigError(f"the study ended as {record.get('status')}; there is nothing to draft from")
    out = []
    for row in record["findings"]:
        finding = findings[row["finding"]]
        codes = [r["code"] for r in row["reasons"]]
        peak = row.get("peak_lps")
        out.append(
            Verdict(
                finding.key,
                finding.truth,
                finding.label,
                row["region"],
                row["verdict"],
                row["score"],
                tuple(r["message"] for r in row["reasons"]),
                any(code not in OWN_REASONS for code in codes),
                (float(peak[0]), float(peak[1]), float(peak[2])) if peak else None,
            )
        )
    return out
