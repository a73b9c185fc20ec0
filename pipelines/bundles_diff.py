"""`medvl bundles diff`: what differs between two bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .built_in import bundle_folder
from .console import emit_json, err, say, table

NONE = "-"


def run(before: str, after: str, store: Path | None = None, *, as_json: bool = False) -> int:
    """Exit code 0 after telling what differs, also where nothing does.

    Raises:
        BundleError: a bundle is unknown or not whole.
    """
    with err().status("comparing"):
        from medvl.models.bundle import open_bundle
        from medvl.models.store_diff import difference

        opened = [open_bundle(bundle_folder(name, store)) for name in (before, after)]
        told = difference(*opened) | {"provenance": _provenance(store, *(b.sha256 for b in opened))}
    if as_json:
        emit_json(told)
    elif told["before"]["sha256"] == told["after"]["sha256"]:
        say(f"{before} and {after} are the same bundle, {told['before']['sha256'][:12]}")
    else:
        _show(told)
    return 0


def _provenance(store: Path | None, before: str, after: str) -> dict[str, list[Any]]:
    """What the store knows of both where it differs."""
    from medvl.models.store import BundleStore

    known = {e.sha256: asdict(e) for e in BundleStore(store).entries()}
    old, new = known.get(before, {}), known.get(after, {})
    names = ("parent", "data_sha256", "recipe", "code_version")
    return {k: [old.get(k), new.get(k)] for k in names if old.get(k) != new.get(k)}


def _show(told: Mapping[str, Any]) -> None:
    one, two = (f"{told[k]['name']} ({told[k]['sha256'][:12]})" for k in ("before", "after"))
    say(f"{one} -> {two}")
    files = told["files"]
    parts = {word: ", ".join(files[word]) or "none" for word in ("changed", "added", "removed")}
    say("; ".join(f"files {word}: {names}" for word, names in parts.items()))
    places = [
        [part, place, *map(_text, pair)] for part in ("contract", "model", "provenance") for place, pair in told[part].items()
    ]
    if places:
        table(["where", "what", "before", "after"], places)
    else:
        say("Input contract, shapes and provenance: the same")
    _questions(told)
    rows = [[part, w["values"], _text(w["moved"]), w["reshaped"]] for part, w in told["weights"].items()]
    if rows:
        table(["weights of", "values", "moved (relative L2)", "tensors new, gone or reshaped"], rows)
    else:
        say("Weights: the same")


def _questions(told: Mapping[str, Any]) -> None:
    found = told["findings"]
    changed = [f"{key} ({', '.join(what)})" for key, what in found["changed"].items()]
    for word, names in (("added", found["added"]), ("removed", found["removed"]), ("changed", changed)):
        if names:
            say(f"Findings {word}: {', '.join(names)}")
    rows = []
    for key in dict.fromkeys([*told["calibrations"], *told["validation_auroc"]]):
        pair = told["calibrations"].get(key, {})
        fits = [_fit(pair.get(side)) for side in ("before", "after")] if pair else ["same", "same"]
        rows.append([key, *fits, *map(_text, told["validation_auroc"].get(key, ("same", "same")))])
    if rows:
        heads = ["threshold (undecided between), before", "after", "validation AUROC, before", "after"]
        table(["finding", *heads], rows)
    else:
        say("Calibrations: the same")


def _fit(found: Mapping[str, Any] | None) -> str:
    return NONE if found is None else f"{found['threshold']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _text(value: Any) -> str:
    return NONE if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
