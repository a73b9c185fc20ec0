"""The model card of a bundle that `medvl train` writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medvl import __version__
from medvl.heads.fitting import Fitted
from medvl.training.run import Workspace

_PHANTOMS = """**Intended use.** Demonstration, tests and teaching of medvl.
It was trained on computer-made phantoms, not on patients.
**Not for** diagnosis, treatment or any decision about a person. On scans of real patients it is expected to answer
"undecided: out_of_distribution"; any other answer on a real patient has no evidence behind it.

**Data.** Phantom cohort, seed {cohort.seed}: {cohort.n_train} training, {cohort.n_validation} validation and
{cohort.n_test} test patients with different numbers. Reports are generated;
labels are read from the reports by rules. No patient data."""
_OTHERS = """**Intended use.** Research, on scans like those it was trained on.
**Not for** diagnosis, treatment or any decision about a person: it is no medical device.

**Data.** {n} training and validation studies from a table that the user gave; labels are read from their reports by rules.
`reference.safetensors` and `survival.json` hold numbers derived from single patients: guard the bundle as you guard them."""
_PHANTOM_LIMITS = """Held-out results with confidence intervals: `docs/explanation/demo-model.md`,
printed by `medvl evaluate {name}`.

**Limits.** Parametric anatomy, few findings, simple noise, English reports of one generator. No people are represented."""
_OTHER_LIMITS = (
    """**Limits.** Only validation scores are given here; measure on patients that neither trained nor calibrated it."""
)


def card(
    work: Workspace,
    fitted: Fitted,
    *,
    streams: bool,
    provenance: Mapping[str, Any] | None = None,
    carried: Mapping[str, float] | None = None,
) -> str:
    """Markdown: what it is for and not for, the data, how it answers, where it comes from, and validation scores.

    Args:
        work: what was trained on.
        fitted: calibration and validation scores.
        streams: whether concept streams answer.
        provenance: what `provenance.json` holds.
        carried: findings with the parent's calibration, and the correlation of old and new margins.
    """
    cohort = work.recipe.cohort
    rows = "\n".join(f"| {key} | {value:.3f} |" for key, value in fitted.auroc.items())
    cases = [case for part in (work.train, work.validation) for case in next(iter(part.values())).cohort.cases]
    painted = all("seed" in (case.get("truth") or {}) for case in cases)
    way = "queries of concept streams" if streams else "prompts, zero-shot"
    return f"""# {work.recipe.name}

{work.recipe.summary}. Made by `medvl train`, medvl {__version__}.

{_PHANTOMS.format(cohort=cohort) if painted else _OTHERS.format(n=len(cases))}

{_origin(provenance or {})}**Input.** `contract.json`: {", ".join(work.recipe.input_contract.names)}, each on its own grid.

**Calibration.** Platt scaling, thresholds and undecided bands from validation patients. Null image taken off: {fitted.prior}.
{_borrowed(carried or {})}
| finding | validation AUROC, by {way} |
|---|---|
{rows}

{_PHANTOM_LIMITS.format(name=work.recipe.name) if painted else _OTHER_LIMITS}
"""


def _origin(provenance: Mapping[str, Any]) -> str:
    """The paragraph on a parent; nothing for a bundle that has none."""
    if "parent" not in provenance:
        return ""
    blend, data, sha256 = provenance.get("blend"), provenance["data_sha256"], provenance["parent"]["sha256"]
    way = f"; its weights lie {blend['share']:g} of the way from the parent's to the trained ones" if blend else ""
    return (
        f"**Origin.** Trained on from {provenance['parent']['name']} ({sha256[:12]}), with dataset {data[:12]}{way}. "
        "`provenance.json` holds the whole chain; how it compares with its parent is the gate's report, kept in the store.\n\n"
    )


def _borrowed(carried: Mapping[str, float]) -> str:
    """The paragraph on calibrations that come from the parent; nothing where none does."""
    if not carried:
        return ""
    told = ", ".join(f"{key} ({correlation:.2f})" for key, correlation in carried.items())
    return (
        "\n**Carried over.** Too few validation patients have or lack these findings, so their probabilities are the parent's, "
        f"brought to the new margins, and have no interval (correlation of old and new margins): {told}.\n"
    )
