"""`medvl findings`: check a findings list against a bundle, and calibrate it into a new one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from medvl.errors import ConfigError

from .built_in import bundle_folder
from .console import err, say, table, warn

if TYPE_CHECKING:
    from medvl.heads.listcheck import Problem
    from medvl.models.bundle import Bundle
    from medvl.text.prompts import FindingList

METHODS = ("platt", "temperature", "isotonic")


def prompt_cache() -> Path | None:
    """Where embedded prompts are kept: MEDVL_CACHE, else the user's cache folder; None where neither can be written."""
    base = os.environ.get("MEDVL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medvl"
    folder = Path(base) / "prompts"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def problems_of(bundle: Bundle, findings: FindingList) -> list[Problem]:
    """All that is wrong with a list for a bundle; the model is loaded only if the list can be asked at all."""
    import torch

    from medvl.heads.listcheck import check_list, check_read
    from medvl.inference.asking import answering_of
    from medvl.text.prompts import load_findings

    found = check_list(findings, bundle.kinds)
    if any(problem.level == "error" for problem in found):
        return found
    own = load_findings(bundle.text("findings.yaml"))
    return found + check_read(findings, answering_of(bundle, own, findings, torch.device("cpu"), None))


def usable(bundle: Bundle, file: Path) -> FindingList:
    """The list in a file; its warnings are printed.

    Raises:
        ConfigError: it cannot be asked of this bundle; every error is named.
    """
    from medvl.text.prompts import load_findings

    findings = load_findings(file)
    problems = problems_of(bundle, findings)
    errors = [f"{p.finding}: {p.message}" for p in problems if p.level == "error"]
    if errors:
        raise ConfigError("; ".join(errors) + f". See all: medvl findings check {file.name}")
    for problem in problems:
        warn(f"{problem.finding or findings.name}: {problem.message}")
    return findings


def check(file: Path, bundle: str) -> int:
    """Exit code 0 when the list can be asked of the bundle, 2 when not; prints what is wrong and what has a calibration."""
    with err().status("reading the bundle"):
        from medvl.inference.asking import known_to
        from medvl.models.bundle import open_bundle
        from medvl.text.prompts import load_findings

        opened = open_bundle(bundle_folder(bundle))
        findings = load_findings(file)
        problems = problems_of(opened, findings)
    if problems:
        table(["", "finding", "what"], [[p.level, p.finding, p.message] for p in problems])
    own, fitted = load_findings(opened.text("findings.yaml")), opened.values("calibration.json")
    verdicts = [key for key in known_to(own, findings) if key in fitted]
    n, errors = len(findings.findings), sum(p.level == "error" for p in problems)
    say(f"{findings.name}: {n} findings, {len(verdicts)} with a calibration in {opened.name}, {n - len(verdicts)} without")
    say(f"{errors} errors, {len(problems) - errors} warnings")
    return 2 if errors else 0


def calibrate(file: Path, bundle: str, embedded: Path, out: Path, *, against: str = "said", method: str = "platt") -> int:
    """Exit code 0 with a new bundle in `out`.

    Raises:
        ConfigError: the list, the cohort or an option is not usable.
    """
    if against not in ("said", "truth"):
        raise ConfigError(f"--against is said or truth, got {against}")
    if method not in METHODS:
        raise ConfigError(f"--method is one of {', '.join(METHODS)}, got {method}")
    with err().status("reading the bundle"):
        from medvl.evaluation.embedded import Embedded
        from medvl.inference.extend import extend
        from medvl.models.bundle import open_bundle

        opened = open_bundle(bundle_folder(bundle))
        findings = usable(opened, file)
        cohort = Embedded.load(embedded)
    with err().status("calibrating"):
        made = extend(opened, findings, cohort, out, against=against, method=method, cache=prompt_cache())  # type: ignore[arg-type]
    rows: list[list[object]] = []
    for finding in findings.findings:
        fit = made.fitted.calibrations.get(finding.key)
        if fit is None:
            rows.append([finding.key, "", "", "", "too few present or absent: no verdict"])
        else:
            area = f"{made.fitted.auroc[finding.key]:.3f}"
            rows.append(
                [finding.key, fit.n_present, fit.n_absent, area, f"{fit.threshold:.3f} ({fit.low:.3f} to {fit.high:.3f})"]
            )
    table(["finding", "present", "absent", "AUROC, in sample", "threshold (undecided between)"], rows)
    say(f"Bundle: {made.bundle.folder}  ({made.bundle.sha256[:12]}). Measure it on test patients before you believe it")
    return 0
