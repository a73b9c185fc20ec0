"""What differs between two bundles: input, questions, calibrations, metrics, and how far each part of the weights moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from medvl.models.bundle import Bundle

if TYPE_CHECKING:
    from torch import Tensor

FITTED = ("slope", "offset", "threshold", "low", "high", "method")


def difference(before: Bundle, after: Bundle) -> dict[str, Any]:
    """Plain values: of each file whether it is the same, and of those that matter what changed.

    `weights` names each part with its number of values, `moved` (L2 norm of the change over that of the old values) and
    `reshaped`: how many tensors are new, gone or of another shape, which count in no norm.
    """
    old, new = before.manifest["files"], after.manifest["files"]
    return {
        "before": {"name": before.name, "sha256": before.sha256, "software": before.manifest.get("software")},
        "after": {"name": after.name, "sha256": after.sha256, "software": after.manifest.get("software")},
        "files": {
            "changed": [f for f in sorted(old) if f in new and old[f] != new[f]],
            "added": sorted(set(new) - set(old)),
            "removed": sorted(set(old) - set(new)),
            "same": [f for f in sorted(old) if old[f] == new.get(f)],
        },
        "contract": _values(before.values("contract.json"), after.values("contract.json")),
        "model": _values(before.values("model.json"), after.values("model.json")),
        "findings": _findings(before, after),
        "calibrations": _calibrations(before.values("calibration.json"), after.values("calibration.json")),
        "validation_auroc": _aurocs(before, after),
        "weights": _weights(before, after) if old["weights.safetensors"] != new["weights.safetensors"] else {},
    }


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list) and any(isinstance(inner, Mapping | list) for inner in value):
        for k, inner in enumerate(value):
            name = inner.get("name", k) if isinstance(inner, Mapping) else k
            yield from _flat(inner, f"{place}.{name}" if place else str(name))
    else:
        yield place, value


def _values(before: Any, after: Any) -> dict[str, list[Any]]:
    """Old and new value by place, where they differ; None where one lacks it."""
    old, new = dict(_flat(before)), dict(_flat(after))
    return {k: [old.get(k), new.get(k)] for k in dict.fromkeys([*old, *new]) if old.get(k) != new.get(k)}


def _findings(before: Bundle, after: Bundle) -> dict[str, Any]:
    lists = (yaml.safe_load(bundle.text("findings.yaml"))["findings"] for bundle in (before, after))
    old, new = ({f["key"]: f for f in found} for found in lists)
    changed = {k: sorted(w for w in {*old[k], *new[k]} if old[k].get(w) != new[k].get(w)) for k in old if k in new}
    return {
        "added": [k for k in new if k not in old],
        "removed": [k for k in old if k not in new],
        "changed": {k: what for k, what in changed.items() if what},
    }


def _calibrations(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    keys = [k for k in dict.fromkeys([*before, *after]) if before.get(k) != after.get(k)]
    return {k: {"before": _fitted(before.get(k)), "after": _fitted(after.get(k))} for k in keys}


def _fitted(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if found is None else {name: found[name] for name in FITTED if name in found}


def _aurocs(before: Bundle, after: Bundle) -> dict[str, list[Any]]:
    old, new = (b.values("metrics.json").get("validation_auroc", {}) if "metrics.json" in b else {} for b in (before, after))
    return {k: [old.get(k), new.get(k)] for k in dict.fromkeys([*old, *new]) if old.get(k) != new.get(k)}


def _weights(before: Bundle, after: Bundle) -> dict[str, Any]:
    old, new = (bundle.tensors("weights.safetensors") for bundle in (before, after))
    parts: dict[str, list[str]] = {}
    for name in dict.fromkeys([*old, *new]):
        parts.setdefault(".".join(name.split(".")[:2]), []).append(name)
    return {part: _moved(names, old, new) for part, names in parts.items()}


def _moved(names: list[str], old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Any]:
    both = [n for n in names if n in old and n in new and old[n].shape == new[n].shape]
    change = sum(float((new[n].double() - old[n].double()).square().sum()) for n in both)
    size = sum(float(old[n].double().square().sum()) for n in both)
    told: dict[str, Any] = {"values": sum(new[n].numel() for n in names if n in new)}
    told["moved"] = None if size == 0 else (change / size) ** 0.5
    return told | {"reshaped": len(names) - len(both)}
