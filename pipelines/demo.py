"""`medvl demo`: the main job from nothing, on embedded defaults."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from . import infer, phantom
from . import view as viewer
from .console import say, warn
from .station import Station

BUNDLE = "phantom-demo"
SEED = 7


def run(out: Path, *, n: int = 6, view_page: bool = True) -> int:
    """Write phantom studies as DICOM, run the bundled model, print findings, and open the viewer unless told not to.

    Returns:
        Exit code 0, or 3 when a study was skipped.
    """
    started = time.monotonic()
    cohort, results = out / "cohort", out / "results"
    warn(f"1/3  {n} phantom patients as DICOM studies with reports")
    phantom.run(cohort, n=n, seed=SEED)
    warn(f"2/3  findings with evidence from the bundled model {BUNDLE}")
    code = infer.run([str(cohort / "dicom")], Station(BUNDLE, results))
    say(f"Done in {time.monotonic() - started:.0f} s. What the phantoms truly have: {cohort / 'truth'}")
    if not view_page:
        return code
    if not sys.stdout.isatty():
        say(f"Open the page with: medvl view --results {results}")
        return code
    warn("3/3  the viewer page; Ctrl-C ends it")
    viewer.run(results, port=8501, open_browser=True)
    return code
