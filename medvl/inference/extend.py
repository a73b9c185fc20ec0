"""A bundle that answers a user's findings too: calibrated on validation patients that the bundle has read, and sealed anew."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from medvl import __version__
from medvl.errors import ConfigError, did_you_mean
from medvl.evaluation.calibration import Method
from medvl.evaluation.embedded import Embedded
from medvl.files import write_json
from medvl.heads.answering import Answering
from medvl.heads.fitting import Fitted, Regions, fit_findings, reference_of
from medvl.heads.ways import Streams, Towers
from medvl.inference.asking import answering_of, drawn_of
from medvl.models.bundle import Bundle, seal
from medvl.text.clauses import binary_attributes
from medvl.text.labels import extract_text
from medvl.text.ontology import Ontology, built_in
from medvl.text.prompts import Finding, FindingList, as_yaml, load_findings

Against = Literal["said", "truth"]


@dataclass(frozen=True, eq=False)
class Extended:
    """The new bundle, and what was fitted for it."""

    bundle: Bundle
    fitted: Fitted


def extend(
    bundle: Bundle,
    findings: FindingList,
    validation: Embedded,
    out: Path,
    *,
    against: Against = "said",
    method: Method = "platt",
    cache: Path | None = None,
) -> Extended:
    """Calibrate a findings list on an embedded validation cohort, and write bundle and list together to `out`.

    A list that asks every finding of the bundle takes the place of the bundle's own.
    A bundle that answers by prompts and was made before reference regions were kept is given them.

    Args:
        bundle: whose weights stay as they are.
        findings: those that the bundle asks in other words replace its own; new ones are added.
        validation: what this very bundle made of validation patients (`medvl embed BUNDLE --split validation`).
        out: folder that is not there yet.
        against: `said`, what the reports state; `truth`, what is known from elsewhere, where the cohort has it.
        method: of calibration.
        cache: folder of embedded prompts.

    Raises:
        ConfigError: another split than validation, another bundle, labels that nobody gives, or no finding with enough of them.
    """
    _check_source(bundle, validation, out)
    own = load_findings(bundle.text("findings.yaml"))
    answering = answering_of(bundle, own, findings, torch.device("cpu"), cache)
    labels = _labels(findings, own, validation, bundle.kinds, against)
    drawn = drawn_of(bundle)
    parts = _regions(answering, own, validation, labels)
    fitted = fit_findings(answering, parts, method=method, draws=drawn["draws"], seed=drawn["seed"])
    if not fitted.calibrations:
        raise ConfigError(
            f"no finding of {findings.name} has 5 present and 5 absent among the validation regions; embed more patients"
        )
    made = _write(bundle, _merged(own, findings), answering, fitted, drawn, out)
    if isinstance(answering, Towers) and "reference.safetensors" not in bundle:
        save_file(reference_of(parts), made / "reference.safetensors")
    told = {"findings": findings.sha256, "against": against, "method": method, "cohort": dict(validation.source)}
    return Extended(_seal(made, bundle, fitted, told), fitted)


def _check_source(bundle: Bundle, validation: Embedded, out: Path) -> None:
    split = validation.source.get("split")
    if split != "validation":
        raise ConfigError(
            f"calibration is fitted on validation patients only, but this cohort is split {split!r}; embed validation"
        )
    if validation.source.get("model_sha256") != bundle.sha256:
        raise ConfigError(f"the cohort was embedded by another bundle than {bundle.name}; embed it again with this one")
    if out.exists():
        raise ConfigError(f"{out} is there already; name a new folder for the bundle")


def _merged(own: FindingList, findings: FindingList) -> FindingList:
    theirs = {f.key: f for f in findings.findings}
    if all(f.key in theirs for f in own.findings):
        return findings
    kept = [theirs.pop(f.key, f) for f in own.findings]
    listed = {"name": f"{own.name}+{findings.name}", "findings": [f.model_dump() for f in (*kept, *theirs.values())]}
    return load_findings(listed)


def _labels(
    findings: FindingList, own: FindingList, table: Embedded, kinds: Mapping[str, tuple[str, ...]], against: Against
) -> list[dict[str, int]]:
    """Of each row, what is known of the attributes that the findings ask for: 1 or 0, or no entry.

    A column of the table is taken where the bundle asks the same under the same condition; else the rules read the report.
    """
    out: list[dict[str, int]] = [{} for _ in range(len(table))]
    columns = {_attribute(f, own): table.column(f.key) for f in own.findings if f.key in table.findings}
    known, told = table.said if against == "said" else table.truth, np.asarray(table.rows["kind"])
    read: dict[str, list[Mapping[str, Any]]] = {}
    for finding in findings.findings:
        truth, here = finding.truth, np.flatnonzero(told == finding.region)
        column = columns.get(_attribute(finding, findings))
        if column is not None:
            values = {int(i): int(known[i, column]) for i in here}
        elif against == "truth":
            raise ConfigError(
                f"the cohort knows no truth of {truth}, asked by {finding.key}; use what reports say (--against said)"
            )
        else:
            ontology = _ontology(finding, kinds)
            if finding.region not in read:
                read[finding.region] = [extract_text(str(table.rows["report"].iloc[i]), ontology) for i in here]
            values = {int(i): said.get(truth, -1) for i, said in zip(here, read[finding.region], strict=True)}  # type: ignore[misc]
        for row, value in values.items():
            if value in (0, 1):
                out[row][truth] = value
    return out


def _attribute(finding: Finding, listed: FindingList) -> tuple[str, str | None]:
    """What answers a finding, and what must be present for it."""
    return finding.truth, listed[finding.given].truth if finding.given else None


def _ontology(finding: Finding, kinds: Mapping[str, tuple[str, ...]]) -> Ontology:
    """The rules that read a finding's attribute from reports.

    Raises:
        ConfigError: no rules do.
    """
    regions = set(kinds[finding.region])
    found = [ontology for ontology in built_in() if regions & set(ontology.regions)]
    keys = [key for ontology in found for key, _, _ in binary_attributes(ontology)]
    for ontology in found:
        if finding.truth in (key for key, _, _ in binary_attributes(ontology)):
            return ontology
    raise ConfigError(
        f"no rules read {finding.truth}, asked by {finding.key}, from reports of {finding.region}, so nothing can calibrate it; "
        f"{did_you_mean(finding.truth, keys) if keys else 'no rules read such reports'}"
    )


def _regions(answering: Answering, own: FindingList, table: Embedded, labels: list[dict[str, int]]) -> dict[str, Regions]:
    """Usable rows by kind."""
    answers = table.embedding if isinstance(answering, Towers) else _odds(answering, own, table)
    kinds, out = np.asarray(table.rows["kind"]), dict[str, Regions]()
    for kind in answering.kinds:
        rows = np.flatnonzero((kinds == kind) & table.usable)
        chosen = table.rows.iloc[rows]
        answered = torch.from_numpy(np.ascontiguousarray(answers[rows]))
        out[kind] = Regions(list(chosen["region"]), np.asarray(chosen["patient_id"]), answered, [labels[i] for i in rows])
    return out


def _odds(answering: Answering, own: FindingList, table: Embedded) -> NDArray[np.float32]:
    """Log odds (N, K) of the concepts that the bundle asks; NaN for others."""
    if not isinstance(answering, Streams):
        raise ConfigError("this model answers neither by prompts nor by queries")
    width = len(answering.concepts) + len(answering.system.anatomies.names)
    out = np.full((len(table), width), np.nan, np.float32)
    prior = np.stack(
        [
            np.asarray(answering.prior[name]) if name in answering.prior else np.zeros(width, np.float32)
            for name in table.rows["region"]
        ]
    )
    for finding in own.findings:
        if finding.key in table.findings:
            column, margins = answering.column(finding), table.margins[:, table.column(finding.key)]
            asked = np.isfinite(margins)
            out[asked, column] = margins[asked] + prior[asked, column]
    return out


def _write(
    bundle: Bundle, merged: FindingList, answering: Answering, fitted: Fitted, drawn: Mapping[str, Any], out: Path
) -> Path:
    """The bundle's files with list, bank, calibrations and limits changed."""
    shutil.copytree(bundle.folder, out)
    asked = {f.key for f in answering.findings.findings}
    (out / "findings.yaml").write_text(as_yaml(merged), encoding="utf-8")
    if isinstance(answering, Towers):
        bank = {**bundle.tensors("bank.safetensors"), **answering.bank}
        save_file({name: pair.contiguous() for name, pair in bank.items()}, out / "bank.safetensors")
    kept = {key: fit for key, fit in bundle.values("calibration.json").items() if key not in asked}
    limits = {key: limit for key, limit in drawn["limits"].items() if key not in asked} | fitted.limits
    write_json(out / "calibration.json", kept | {key: fit.as_dict() for key, fit in fitted.calibrations.items()})
    write_json(out / "paraphrases.json", {**drawn, "limits": limits})
    return out


def _seal(folder: Path, bundle: Bundle, fitted: Fitted, told: Mapping[str, Any]) -> Bundle:
    metrics = bundle.values("metrics.json")
    metrics["validation_auroc"] = {**metrics.get("validation_auroc", {}), **fitted.auroc}
    metrics["calibrated"] = [*metrics.get("calibrated", []), {**told, "from": bundle.sha256}]
    write_json(folder / "metrics.json", metrics)
    (folder / "README.md").write_text(_card(bundle.text("README.md"), fitted, told), encoding="utf-8")
    return seal(folder, folder.name, f"medvl {__version__}")


def _card(card: str, fitted: Fitted, told: Mapping[str, Any]) -> str:
    """The model card: scores in its tables brought up to date, findings that it does not list yet added at its end."""
    added = []
    for key, value in fitted.auroc.items():
        row = f"| {key} | {value:.3f} |"
        card, found = re.subn(rf"^\| {re.escape(key)} \|[^|\n]*\|$", row, card, flags=re.MULTILINE)
        added += [] if found else [row]
    labels = "what reports say" if told["against"] == "said" else "what is known otherwise"
    who = f"by {told['method']}, against {labels}, on validation patients of: {told['cohort'].get('cohort')}."
    card = f"{card.rstrip()}\n\n## Calibrated since\n\n{len(fitted.auroc)} findings, {who}\n"
    return card + "\n".join(["", "| finding added | validation AUROC |", "|---|---|", *added, ""] if added else [])
