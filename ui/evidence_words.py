"""What supports a verdict and what stands against it, in words; pure functions of a study's record."""

from __future__ import annotations

from .study import DeletionRecord, FindingRecord, RegionRecord, SeriesRecord
from .wording import spoken

TITLES = {
    "near_threshold": "Near the threshold",
    "paraphrases_disagree": "Depends on the wording",
    "out_of_distribution": "Unfamiliar image",
    "depends_on_undecided": "Depends on an open finding",
    "region_incomplete": "Region incomplete",
    "region_not_found": "Region not found",
    "not_calibrated": "Not calibrated",
}
NOTICED = 0.05  # a smaller change of a score is called no change


def doubts(finding: FindingRecord, region: RegionRecord | None) -> list[tuple[str, str]]:
    """Why the answer is not certain: title and sentence of each reason, those that withheld the verdict first."""
    found = [(TITLES.get(r.code, "Withheld"), r.message or r.code) for r in finding.reasons if r.message or r.code]
    codes = {r.code for r in finding.reasons}
    if finding.verdict == "undecided" and not found:
        found.append(("Withheld", "No reason was recorded."))
    found += [doubt for doubt in (_calibration(finding), _wording(finding, codes), _map(finding)) if doubt]
    if region is not None:
        found += [doubt for doubt in (_familiar(region, codes), _complete(region, codes)) if doubt]
    return found


def _calibration(finding: FindingRecord) -> tuple[str, str] | None:
    cut = finding.threshold
    if finding.interval is None or cut is None or not finding.interval[0] <= cut <= finding.interval[1]:
        return None
    low, high = finding.interval
    return "Calibration", f"Its interval, {low:.2f} to {high:.2f}, holds the threshold {cut:.2f}: other patients could turn it."


def _wording(finding: FindingRecord, codes: set[str]) -> tuple[str, str] | None:
    spread = finding.spread
    if spread is None or "paraphrases_disagree" in codes or round(100 * spread.turned) == 0:
        return None
    return "Wording", f"{100 * spread.turned:.0f} % of other wordings give the other answer."


def _map(finding: FindingRecord) -> tuple[str, str] | None:
    test = finding.deletion
    if test is None or finding.verdict != "present" or not _no_better(test):
        return None
    return "Evidence map", "Removing the marked place does not lower the score more than removing others: mistrust the map."


def _no_better(test: DeletionRecord) -> bool:
    elsewhere = 0.0 if test.control is None else test.before - test.control
    return test.before - test.after < max(elsewhere, 0.0) + NOTICED


def _familiar(region: RegionRecord, codes: set[str]) -> tuple[str, str] | None:
    ood = region.ood
    if ood is None or "out_of_distribution" in codes or ood.distance is None or not ood.limit:
        return None
    if ood.distance < 0.9 * ood.limit:
        return None
    return "Unfamiliar image", f"The {spoken(region.name)} is at distance {ood.distance:.2f} of the limit {ood.limit:.2f}."


def _complete(region: RegionRecord, codes: set[str]) -> tuple[str, str] | None:
    if region.covered is None or region.covered >= 0.995 or "region_incomplete" in codes:
        return None
    return "Region incomplete", f"{100 * region.covered:.0f} % of the {spoken(region.name)} lies inside the scan."


def interval_text(finding: FindingRecord) -> str:
    """The calibration interval in a sentence."""
    if finding.interval is None:
        return "No interval: the bundle was calibrated without one."
    low, high = finding.interval
    return f"95 % interval {low:.2f} to {high:.2f}: where the score would lie if other patients had been used to calibrate it."


def spread_text(finding: FindingRecord) -> str:
    """The spread over paraphrases in a sentence."""
    spread = finding.spread
    if spread is None:
        return "No spread over wordings was recorded."
    turned = f"{100 * spread.turned:.0f} % give the other answer" if spread.turned else "none gives the other answer"
    return f"Asked in other words: {spread.low:.2f} to {spread.high:.2f} (95 % of wordings, SD {spread.sd:.2f}); {turned}."


def percentile_text(finding: FindingRecord) -> str:
    """Where the answer stands among the reference regions."""
    if finding.percentile is None:
        return "No reference regions to compare with."
    return f"Higher than in {finding.percentile:.0f} % of the reference regions of the {spoken(finding.region)}."


def deletion_words(test: DeletionRecord | None) -> str:
    """The deletion test with its control in a sentence or two."""
    if test is None:
        return "No deletion test was made."
    told = f"Removing the marked place takes the score from {test.before:.2f} to {test.after:.2f}"
    told += "." if test.control is None else f"; removing as much elsewhere, to {test.control:.2f}."
    if not _no_better(test):
        return f"{told} The score rests on this place."
    if test.after > test.before + NOTICED:
        return f"{told} It rises: the map does not show what the score rests on."
    return f"{told} The map does not show what the score rests on."


def scanner_facts(series: SeriesRecord) -> str:
    """What is known of the scanner and the protocol, on one line."""
    units = {"kvp": "kV", "slice_thickness_mm": "mm slices"}
    names = {"contrast": "contrast", "kernel": "kernel"}
    parts = []
    for name in ("manufacturer", "model", "kernel", "kvp", "slice_thickness_mm", "contrast"):
        value = series.facts.get(name)
        if value not in (None, "", []):
            shown = f"{value:g}" if isinstance(value, float | int) and not isinstance(value, bool) else str(value)
            parts.append(" ".join(part for part in (names.get(name, ""), shown, units.get(name, "")) if part))
    return ", ".join(parts)
