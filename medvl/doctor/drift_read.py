"""A results folder as plain rows, and what its bundle knows of its own validation patients."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvl.errors import ConfigError
from medvl.models.bundle import Bundle

UNKNOWN = "unknown"
COLUMNS = ("scanner", "kernel", "thickness", "week", "kvp", "contrast")


@dataclass(frozen=True)
class Looked:
    """One region of one study: distance of its features and limit, None where not measured; whether anything was unfamiliar."""

    distance: float | None
    limit: float | None
    strange: bool


@dataclass(frozen=True)
class Answer:
    """One answer: uncalibrated score, its percentile (0 to 100) among the bundle's reference regions, and verdict."""

    margin: float | None
    percentile: float | None
    verdict: str


@dataclass(frozen=True)
class Seen:
    """One study that is done.

    Args:
        case_id: keyed hash.
        groups: value of every column of `COLUMNS`, ``unknown`` where the record does not say.
        inputs: numbers of the series: `slice_spacing_mm`, `pixel_spacing_mm`, `slices`, `length_mm`.
        regions: by name.
        answers: by (finding, region).
    """

    case_id: str
    groups: Mapping[str, str]
    inputs: Mapping[str, float]
    regions: Mapping[str, Looked]
    answers: Mapping[tuple[str, str], Answer]


@dataclass(frozen=True)
class Results:
    """What was read: studies of one bundle, how many of each status, and how many of other bundles were left out."""

    bundle: Mapping[str, str]
    studies: tuple[Seen, ...]
    statuses: Mapping[str, int]
    other_bundles: int
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Reference:
    """What a bundle holds of its validation patients.

    Args:
        name, sha256: of the bundle.
        rows: by region, how many reference regions percentiles are counted among.
        given: findings that are asked only where another one is not absent, so that their percentiles are not even.
        counts: by finding, validation regions that are (present, absent).
        looks: by region, how often familiarity is looked at: features, and in newer bundles the image as well.
    """

    name: str
    sha256: str
    rows: Mapping[str, int]
    given: frozenset[str]
    counts: Mapping[str, tuple[int, int]]
    looks: Mapping[str, int]


def reference_of(bundle: Bundle) -> Reference:
    """What `bundle` knows."""
    from medvl.text.prompts import load_findings

    kept = bundle.tensors("reference.safetensors") if "reference.safetensors" in bundle else {}
    familiar = {name.rpartition(".")[0] for name in bundle.tensors("familiarity.safetensors")}
    listed = load_findings(bundle.text("findings.yaml")).findings
    return Reference(
        bundle.name,
        bundle.sha256,
        {region: len(rows) for region, rows in kept.items()},
        frozenset(finding.key for finding in listed if finding.given),
        {key: (int(v["n_present"]), int(v["n_absent"])) for key, v in bundle.values("calibration.json").items()},
        {region: 1 + (f"{kind}/image" in familiar) for kind, regions in bundle.kinds.items() for region in regions},
    )


def read_results(folder: Path, sha256: str | None = None) -> Results:
    """Every study of a results folder that one bundle did.

    Args:
        folder: what `medvl infer` wrote.
        sha256: of the bundle; None takes the one that did most studies.

    Raises:
        ConfigError: there is no study, none is done, or none by that bundle.
    """
    records = [json.loads(p.read_text(encoding="utf-8")) for p in sorted((folder / "studies").glob("*/findings.json"))]
    if not records:
        raise ConfigError("the folder holds no studies/*/findings.json; name the folder that `medvl infer --out` wrote")
    done = [record for record in records if record["status"] == "done"]
    if not done:
        raise ConfigError(f"none of the {len(records)} studies is done, so there is nothing to compare; see their reasons")
    by_bundle = Counter(record["bundle"]["sha256"] for record in done)
    wanted = sha256 or by_bundle.most_common(1)[0][0]
    if wanted not in by_bundle:
        names = sorted({f"{r['bundle']['name']} {r['bundle']['sha256'][:12]}" for r in done})
        raise ConfigError(
            f"no study was done with bundle {wanted[:12]}; these were: {', '.join(names)}. Compare against one of them"
        )
    own = [record for record in done if record["bundle"]["sha256"] == wanted]
    labels = {f["finding"]: f["label"] for record in own for f in record["findings"]}
    statuses = Counter(str(record["status"]) for record in records)
    return Results(own[0]["bundle"], tuple(_seen(r) for r in own), statuses, len(done) - len(own), labels)


def _seen(record: Mapping[str, Any]) -> Seen:
    series = record.get("series") or {}
    return Seen(
        str(record["case_id"]),
        groups_of(series.get("facts") or {}, record.get("made_at")),
        _inputs(series),
        {r["name"]: _looked(r) for r in record["regions"]},
        {(f["finding"], f["region"]): Answer(f.get("margin"), f.get("percentile"), f["verdict"]) for f in record["findings"]},
    )


def _looked(region: Mapping[str, Any]) -> Looked:
    measured = region.get("ood") or {}
    strange = any(reason["code"] == "out_of_distribution" for reason in region["reasons"])
    return Looked(measured.get("distance"), measured.get("limit"), strange)


def _inputs(series: Mapping[str, Any]) -> dict[str, float]:
    spacing, shape = series.get("spacing_mm"), series.get("shape_dhw")
    if not spacing or not shape:
        return {}
    slices = int(shape[0])
    return {
        "slice_spacing_mm": float(spacing[0]),
        "pixel_spacing_mm": float(spacing[2]),
        "slices": float(slices),
        "length_mm": round(slices * float(spacing[0]), 2),
    }


def groups_of(facts: Mapping[str, Any], made_at: str | None) -> dict[str, str]:
    """The value of every column for one study."""
    maker, model = (str(facts.get(name, "")).strip() for name in ("manufacturer", "model"))
    contrast = facts.get("contrast")
    values = {
        "scanner": f"{maker} {model}".strip(),
        "kernel": str(facts.get("kernel", "")).strip(),
        "thickness": _number(facts.get("slice_thickness_mm"), "mm"),
        "week": _week(made_at),
        "kvp": _number(facts.get("kvp"), "kV"),
        "contrast": "" if contrast is None else "with contrast" if contrast else "without contrast",
    }
    return {name: values[name] or UNKNOWN for name in COLUMNS}


def _number(value: object, unit: str) -> str:
    return f"{round(float(value), 2):g} {unit}" if isinstance(value, int | float) else ""


def _week(made_at: object) -> str:
    """ISO week of an ISO time, such as 2026-W47; empty where there is none."""
    try:
        year, week, _ = datetime.datetime.fromisoformat(str(made_at)).isocalendar()
    except ValueError:
        return ""
    return f"{year}-W{week:02d}"


def columns_of(asked: Sequence[str]) -> tuple[str, ...]:
    """Columns to group by, each once.

    Raises:
        ConfigError: an unknown one.
    """
    from medvl.errors import did_you_mean

    for name in asked:
        if name not in COLUMNS:
            raise ConfigError(f"cannot group by {name!r}; {did_you_mean(name, COLUMNS)}")
    return tuple(dict.fromkeys(asked))
