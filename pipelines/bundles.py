"""`medvl bundles`: what ships and what the store keeps, where it came from, and which one is in use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.errors import ConfigError

from .built_in import bundle_folder, bundles
from .console import emit_json, say, table

if TYPE_CHECKING:
    from medvl.models.store import BundleStore, Entry, Promotion

NONE = "-"


def list_all(store: Path | None = None, *, as_json: bool = False) -> int:
    """Built-in bundles, then those of the store; the one in use is marked."""
    from medvl.models.bundle import fingerprint

    kept = _store(store)
    now = kept.in_use()
    told: list[dict[str, Any]] = []
    for name, folder in bundles().items():
        sha = fingerprint(_manifest(folder)["files"])
        told.append({"bundle": name, "where": "built in", "sha256": sha, "in_use": False, "size_mb": _megabytes(folder)})
    for entry in kept.entries():
        told.append(_row(kept, entry, now))
    if as_json:
        emit_json({"store": str(kept.folder), "bundles": told})
        return 0
    names = {row["sha256"]: str(row["bundle"]) for row in told}
    called = {entry.sha256: entry.name for entry in kept.entries()}
    rows = []
    for row in told:
        mark = "in use" if row["in_use"] else "built in" if row["where"] == "built in" else ""
        parent, data = row.get("parent"), row.get("data_sha256")
        above = called.get(parent, parent[:12]) if parent else NONE
        rows.append([row["bundle"], mark, row.get("gate") or NONE, above, data[:8] if data else NONE])
    table(["bundle", "", "gate", "made from", "data"], rows)
    used = f"--bundle promoted is {names.get(now, now[:12])}" if now else "Nothing is promoted"
    say(f"Store: {kept.folder}. {used}")
    return 0


def verify(name: str, store: Path | None = None, *, as_json: bool = False) -> int:
    """Check every hash and the contract.

    Raises:
        BundleError: naming the file that is missing, added or altered.
    """
    from medvl.models.bundle import open_bundle

    bundle = open_bundle(bundle_folder(name, store))
    kept = _store(store)
    if bundle.folder.parent == kept.folder / "bundles":
        kept.verify(kept.find(bundle.folder.name))
    n = len(bundle.manifest["files"])
    if as_json:
        emit_json({"bundle": bundle.name, "sha256": bundle.sha256, "contract": bundle.contract.hash, "files": n, "whole": True})
    else:
        say(f"{bundle.name}: {n} files match, contract {bundle.contract.hash[:12]}, bundle {bundle.sha256[:12]}")
    return 0


def add(
    folder: str,
    store: Path | None = None,
    *,
    parent: str | None = None,
    gate: Path | None = None,
    data_sha256: str | None = None,
    recipe: str | None = None,
    code_version: str | None = None,
    as_json: bool = False,
) -> int:
    """Copy a bundle into the store, or tell the store more of one that it has.

    Args:
        folder: built-in name, folder, or name in the store.
        store: its folder.
        parent: the bundle it was made from, which comes along.
        gate: `gate.json` of the gate that judged it.
        data_sha256: of what it learned from.
        recipe: how, in words or by name.
        code_version: by which software; None takes what the bundle says.
        as_json: print the entry.

    Raises:
        BundleError: a bundle is not whole. ConfigError: the gate judged another bundle.
    """
    source, kept = bundle_folder(folder, store), _store(store)
    entry = kept.add(
        source,
        parent=bundle_folder(parent, store) if parent else None,
        data_sha256=data_sha256,
        recipe=recipe,
        code_version=code_version or _manifest(source).get("software"),
        gate=_gate(gate) if gate else None,
    )
    if as_json:
        emit_json(asdict(entry))
    else:
        say(f"{entry.key} is in the store at {kept.folder}; gate: {_verdict(kept, entry) or 'none yet'}")
    return 0


def promote(name: str, store: Path | None = None, *, force: bool = False, reason: str = "", as_json: bool = False) -> int:
    """Put a bundle of the store in use.

    Raises:
        BundleError: it is not whole, was never gated, or failed. ConfigError: force without a reason.
    """
    _tell(_store(store).promote(name, force=force, reason=reason), as_json)
    return 0


def rollback(store: Path | None = None, *, reason: str = "", as_json: bool = False) -> int:
    """Put the bundle in use again that was in use before.

    Raises:
        BundleError: none was, or it is gone.
    """
    _tell(_store(store).rollback(reason=reason), as_json)
    return 0


def history(store: Path | None = None, *, as_json: bool = False) -> int:
    """Every promotion and rollback, oldest first.

    Raises:
        BundleError: the journal was altered.
    """
    lines = _store(store).history()
    if as_json:
        emit_json([asdict(line) for line in lines])
        return 0
    rows = [
        [line.n, line.at[:16].replace("T", " "), f"{line.action}{', forced' if line.forced else ''}", line.name, line.reason]
        for line in lines
    ]
    table(["n", "when (UTC)", "what", "in use since", "reason"], rows)
    return 0


def show(name: str, store: Path | None = None, *, as_json: bool = False) -> int:
    """One bundle of the store: provenance, ancestors, gates.

    Raises:
        BundleError: the store has none of this name.
    """
    kept = _store(store)
    entry = kept.promoted() if name == "promoted" else kept.find(name)
    if entry is None:
        raise ConfigError("no bundle is promoted; see medvl bundles list")
    shipped = _built_in_hashes()
    line = [(sha, shipped.get(sha) or _known(kept, sha)) for sha in kept.lineage(entry)]
    above = [{"sha256": sha, "bundle": known} for sha, known in line]
    gates = [{"gate": sha} | _gist(record) for sha, record in zip(entry.gates, kept.gates_of(entry), strict=True)]
    told = asdict(entry) | {"folder": str(kept.folder_of(entry)), "lineage": above, "gates": gates}
    if as_json:
        emit_json(told)
        return 0
    chain = " < ".join([entry.key, *(known or sha[:12] for sha, known in line)])
    facts = {
        "SHA-256": entry.sha256,
        "folder": told["folder"],
        "added": entry.added,
        "made from": chain if above else "not told",
        "data": entry.data_sha256 or "not told",
        "software": entry.code_version or "not told",
        "recipe": json.dumps(entry.recipe) if isinstance(entry.recipe, Mapping) else entry.recipe or "not told",
    }
    table(["", entry.key], list(facts.items()))
    for gate in gates:
        say(f"Gate {gate['gate'][:12]}: {'passed' if gate['passed'] else 'failed'} against {gate['before'][:12]}")
        for line in gate["reasons"]:
            say(f"  {line}")
    return 0


def _store(folder: Path | None) -> BundleStore:
    from medvl.models.store import BundleStore

    return BundleStore(folder)


def _manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "bundle.json").read_text(encoding="utf-8")))


def _megabytes(folder: Path) -> float:
    return round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6, 1)


def _row(kept: BundleStore, entry: Entry, now: str | None) -> dict[str, Any]:
    told = {"bundle": entry.key, "where": "store", "sha256": entry.sha256, "in_use": entry.sha256 == now}
    more = {"gate": _verdict(kept, entry), "parent": entry.parent, "data_sha256": entry.data_sha256}
    return told | more | {"size_mb": _megabytes(kept.folder_of(entry)), "added": entry.added, "code_version": entry.code_version}


def _verdict(kept: BundleStore, entry: Entry) -> str | None:
    """What its latest gate said."""
    gates = kept.gates_of(entry)
    return ("passed" if gates[-1]["passed"] else "failed") if gates else None


def _built_in_hashes() -> dict[str, str]:
    from medvl.models.bundle import fingerprint

    return {fingerprint(_manifest(folder)["files"]): f"{name} (built in)" for name, folder in bundles().items()}


def _known(kept: BundleStore, sha: str) -> str | None:
    return next((e.key for e in kept.entries() if e.sha256 == sha), None)


def _gist(record: Mapping[str, Any]) -> dict[str, Any]:
    reasons = [f"{r['code']}: {r['sentence']}" for r in record.get("reasons", ()) if r["fails"]]
    return {"passed": record["passed"], "before": record["before"]["sha256"], "reasons": reasons}


def _gate(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} holds no record of a gate; give the gate.json that medvl gate wrote") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no record of a gate; give the gate.json that medvl gate wrote")
    return found


def _tell(line: Promotion, as_json: bool) -> None:
    if as_json:
        emit_json(asdict(line))
        return
    was = f", before it {line.was[:12]}" if line.was else ""
    say(f"In use: {line.name}{was}{'; by force' if line.forced else ''}")
    say("Programs that run keep the bundle they loaded: start medvl listen and medvl view again")
