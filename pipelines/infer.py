"""`medvl infer`: findings with evidence for every study of the inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medvl.errors import ConfigError

from . import cluster
from .console import emit_json, say, table, warn
from .station import EXIT_STOPPED, Station, exit_code, open_run, work

if TYPE_CHECKING:
    import pandas as pd

    from medvl.batch.ray_engine import Crew

REGION_REASONS = ("region_not_found", "region_incomplete", "out_of_distribution")
SHOWN = 40


def run(
    inputs: Sequence[str], station: Station, *, crew: Crew | None = None, masks: Path | None = None, as_json: bool = False
) -> int:
    """Exit code 0 when every study is done and sent, 3 when some are not, 4 when the run had to stop.

    Raises:
        BundleError: the bundle is not there, incomplete or altered.
        ConfigError: masks come with several inputs, or an input, address or option that cannot be used.
    """
    if masks is not None and len(inputs) != 1:
        raise ConfigError(f"--masks belongs to one study, but {len(inputs)} inputs are given; run them one by one")
    from medvl.batch.inputs import inputs_of
    from medvl.batch.stopping import StoppedError

    listed = inputs_of(inputs, allow_plain=station.allow_plain)
    try:
        summary = work(open_run(station, masks), listed) if crew is None else cluster.work(station, crew, listed, masks)
    except StoppedError as error:
        warn(f"stopped: {error.message}")
        return EXIT_STOPPED
    if as_json:
        emit_json(summary.as_dict())
    else:
        _print(station.out, summary.as_dict())
    return exit_code(summary)


def _print(out: Path, summary: dict[str, object]) -> None:
    import pandas as pd

    from medvl.inference.results import COLUMNS
    from medvl.records import RESEARCH_USE

    mine = {case["case_id"] for case in summary["cases"]}  # type: ignore[attr-defined]
    written = out / "results.parquet"  # not there when the disk was full before it could be
    rows = pd.read_parquet(written) if written.exists() else pd.DataFrame(columns=list(COLUMNS), dtype=str)
    rows = rows[rows["case_id"].isin(mine)]
    region_wide = rows["reasons"].fillna("").str.contains("|".join(REGION_REASONS))
    raw = rows["reasons"].fillna("").str.contains("not_calibrated") & ~region_wide
    dependent = rows["reasons"].fillna("").str.contains("depends_on_undecided")
    shown = rows[rows["verdict"].isin(["present", "undecided"]) & ~region_wide & ~dependent & ~raw]
    cells = [
        [r.case_id, r.region or "", r.label or "", "" if pd.isna(r.score) else f"{r.score:.2f}", r.verdict or "", r.reasons or ""]
        for r in shown.itertuples()
    ]
    title = "Findings present or undecided" + (f" (the first {SHOWN} of {len(cells)})" if len(cells) > SHOWN else "")
    table(["study", "region", "finding", "score", "verdict", "reasons"], cells[:SHOWN], title=title)
    if raw.any():
        _print_raw(rows[raw])
    silent = rows[region_wide].drop_duplicates(["case_id", "region"])
    if len(silent):
        cells = [[r.case_id, r.region, r.reasons] for r in silent.itertuples()]
        title = "Regions left undecided as a whole" + (f" (the first {SHOWN} of {len(cells)})" if len(cells) > SHOWN else "")
        table(["study", "region", "why nothing is said of it"], cells[:SHOWN], title=title)
    words = ("done", "resumed", "skipped", "failed", "quarantined", "waiting")
    ended = ", ".join(f"{summary[status]} {status}" for status in words if summary[status] or status in words[:4])
    say(f"{summary['studies']} studies: {ended}")
    for code, n in dict(summary["reasons"]).items():  # type: ignore[call-overload]
        say(f"  {n} x {code}")
    deliveries: dict[str, int] = summary["deliveries"]  # type: ignore[assignment]
    if deliveries:
        say("deliveries: " + ", ".join(f"{n} {state}" for state, n in deliveries.items()))
        for code, n in dict(summary["undelivered"]).items():  # type: ignore[call-overload]
            say(f"  {n} x {code}")
    if summary["without_objects"]:
        say(f"no DICOM objects could be made of {summary['without_objects']} studies; the lines above say why")
    receipt: dict[str, object] = summary["receipt"]  # type: ignore[assignment]
    say(f"{receipt['seconds']} s, {receipt['studies_per_hour']} studies an hour")
    say(f"Table: {out / 'results.csv'}   Summary: {out / 'summary.html'}   Page: medvl view --results {out}")
    say(RESEARCH_USE)


def _print_raw(rows: pd.DataFrame) -> None:
    """Findings that the bundle has no calibration for: the highest margins of each study, without any verdict."""
    ranked = (
        rows.sort_values(["percentile", "margin"], ascending=False, na_position="last").groupby("case_id", sort=False).head(10)
    )
    cells = [
        [r.case_id, r.region, r.label, f"{r.margin:.3f}", "" if math.isnan(r.percentile) else f"{r.percentile:.0f}"]
        for r in ranked.sort_values("case_id", kind="stable").itertuples()
    ]
    title = f"Without calibration: no verdict, margins only ({len(rows)} answers; at most 10 a study shown)"
    table(["study", "region", "finding", "margin", "percentile"], cells, title=title)
