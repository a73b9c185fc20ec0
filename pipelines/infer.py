"""`medvl infer`: findings with evidence for every study of the inputs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from medvl.errors import ConfigError

from .built_in import bundle_folder
from .console import emit_json, err, say, table, warn
from .findings import prompt_cache, usable

if TYPE_CHECKING:
    import pandas as pd

REGION_REASONS = ("region_not_found", "region_incomplete", "out_of_distribution")


def run(
    inputs: list[Path],
    *,
    bundle: str,
    out: Path,
    device: str = "auto",
    masks: Path | None = None,
    findings: Path | None = None,
    as_json: bool = False,
) -> int:
    """Exit code 0 when every study is done, 3 when some were skipped or failed.

    Raises:
        BundleError: the bundle is not there, incomplete or altered.
        ConfigError: a device is asked for that is not there, masks come with several inputs or hold no region, or the findings
            list cannot be asked of the bundle.
    """
    if masks is not None and len(inputs) != 1:
        raise ConfigError(f"--masks belongs to one study, but {len(inputs)} inputs are given; run them one by one")
    folder, chosen = bundle_folder(bundle), _device(device)
    with err().status("loading the model"):
        from medvl.files import replace_text
        from medvl.inference.batch import run_batch
        from medvl.inference.masks import places_from_masks
        from medvl.inference.predictor import Predictor
        from medvl.models.bundle import open_bundle

        opened = open_bundle(folder)
        places = places_from_masks(masks, opened.contract.names) if masks else None
        listed = usable(opened, findings) if findings else None
        predictor = Predictor(opened, chosen, places, findings=listed, cache=prompt_cache())
    if predictor.survival is None:
        warn("this bundle estimates no survival: it holds no survival.json")
    done = 0

    def told(case_id: str, status: str) -> None:
        nonlocal done
        done += 1
        warn(f"[{done}] study {case_id}: {status}")

    summary = run_batch(inputs, predictor, out, told)
    replace_text(out / "run.json", json.dumps(summary.as_dict(), indent=1) + "\n")
    if as_json:
        emit_json(summary.as_dict())
    else:
        _print(out, summary.as_dict())
    return 3 if summary.statuses["skipped"] + summary.statuses["failed"] else 0


def _device(wanted: str) -> str:
    """``cuda`` or ``cpu``; auto takes CUDA where there is one."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "--device cuda, but PyTorch sees no CUDA device; give --device cpu or auto, or see docs/how-to/use-a-gpu.md"
        )
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def _print(out: Path, summary: dict[str, object]) -> None:
    import pandas as pd

    from medvl.records import RESEARCH_USE

    rows = pd.read_parquet(out / "results.parquet")
    region_wide = rows["reasons"].fillna("").str.contains("|".join(REGION_REASONS))
    raw = rows["reasons"].fillna("").str.contains("not_calibrated") & ~region_wide
    dependent = rows["reasons"].fillna("").str.contains("depends_on_undecided")
    shown = rows[rows["verdict"].isin(["present", "undecided"]) & ~region_wide & ~dependent & ~raw]
    cells = [
        [r.case_id, r.region or "", r.label or "", "" if pd.isna(r.score) else f"{r.score:.2f}", r.verdict or "", r.reasons or ""]
        for r in shown.itertuples()
    ]
    table(["study", "region", "finding", "score", "verdict", "reasons"], cells, title="Findings present or undecided")
    if raw.any():
        _print_raw(rows[raw])
    silent = rows[region_wide].drop_duplicates(["case_id", "region"])
    if len(silent):
        cells = [[r.case_id, r.region, r.reasons] for r in silent.itertuples()]
        table(["study", "region", "why nothing is said of it"], cells, title="Regions left undecided as a whole")
    ended = ", ".join(f"{summary[status]} {status}" for status in ("done", "resumed", "skipped", "failed"))
    say(f"{summary['studies']} studies: {ended}")
    for code, n in dict(summary["reasons"]).items():  # type: ignore[call-overload]
        say(f"  {n} x {code}")
    say(f"Table: {out / 'results.csv'}   Page: medvl view --results {out}")
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
