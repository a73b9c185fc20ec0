"""`medvl import-release`: a checkpoint that another project released, as a start for a recipe."""

from __future__ import annotations

from pathlib import Path

from .console import emit_json, say, table, warn

INCOMPLETE = 5
SHOWN = 5


def run(system: str, checkpoint: Path, out: Path, *, windows: int = 3, as_json: bool = False) -> int:
    """Exit code 0 with weights under our names in `out`; 5 when something is missing or unexplained, and nothing is written.

    Args:
        system: renalclip, cardiac-clip or medslip.
        checkpoint: of that release.
        out: not there, or empty.
        windows: HU windows of the input, for medslip.
        as_json: print the report.

    Raises:
        ConfigError: no such system, or a checkpoint that cannot be read as tensors alone.
    """
    from medvl.exchange.released import import_release

    report = import_release(system, checkpoint, out, windows)
    code = 0 if report.complete else INCOMPLETE
    if as_json:
        emit_json({"complete": report.complete, **report.as_dict()})
        return code
    rows = [
        [prefix, *(str(len(names)) for names in (found.matched, found.missing, found.unexpected, found.wrong_shape))]
        for prefix, found in report.parts.items()
    ]
    table(["part", "loaded", "missing", "unexpected", "another shape"], rows, title=f"{checkpoint.name} as {system}")
    say(f"{len(report.left)} weights of parts that medvl does not take" + (f", such as {report.left[0]}" if report.left else ""))
    for prefix, found in report.parts.items():
        for what, names in (("missing", found.missing), ("unexpected", found.unexpected), ("another shape", found.wrong_shape)):
            for name in names[:SHOWN]:
                warn(f"{prefix} {what}: {name}")
            if len(names) > SHOWN:
                warn(f"{prefix} {what}: and {len(names) - SHOWN} more")
    if code:
        warn("nothing was written: not every weight is explained")
    else:
        say(f"{out}: weights.safetensors, release.json, model.yaml. Start with them: medvl train RECIPE --start {out} --out RUN")
    return code
