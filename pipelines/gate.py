"""`medvl gate`: whether a new bundle may take the place of the one in use, judged on the same held-out patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .built_in import bundle_folder, gate_file, gates
from .console import emit_json, err, say

if TYPE_CHECKING:
    from medvl.evaluation.gate import GateResult
    from medvl.evaluation.results import Subject

EXIT_FAILED = 6


def run(
    before: str,
    after: str,
    *,
    embedded_before: Path,
    embedded_after: Path,
    out: Path,
    policy: str = "default",
    training: Sequence[Path] = (),
    keep: bool = False,
    store: Path | None = None,
    as_json: bool = False,
) -> int:
    """Exit code 0 where the new bundle passed, 6 where it did not; `gate.json`, `gate.md` and `gate.html` say why.

    Args:
        before: the bundle in use.
        after: the new bundle.
        embedded_before: what `medvl embed` made of the held-out patients with the bundle in use.
        embedded_after: the same with the new one.
        out: folder to write to.
        policy: name of a built-in policy, or a YAML file.
        training: embedded folders of what the new bundle learned from, to look for leaks in.
        keep: copy the new bundle into the store, with this result beside it.
        store: folder of the store; None takes the default one.
        as_json: print the record instead of sentences.

    Raises:
        ConfigError: policy or folders are not usable. BundleError: a bundle is not.
    """
    folders = bundle_folder(before, store), bundle_folder(after, store)
    with err().status("comparing"):
        result = judge(*folders, embedded_before, embedded_after, policy, out, training)
    if keep:
        from medvl.models.store import BundleStore

        BundleStore(store).add(folders[1], gate=result.record)
    if as_json:
        emit_json(result.record)
    else:
        one, two = (f"{result.record[k]['name']} ({result.record[k]['sha256'][:12]})" for k in ("before", "after"))
        say(f"{'Passed' if result.passed else 'Not passed'}: {two} in place of {one}")
        for ground in result.grounds:
            say(f"{'FAILS' if ground.fails else 'note'} {ground.code}: {ground.sentence}")
        say(f"Written: {out / 'gate.html'}, {out / 'gate.md'}, {out / 'gate.json'}")
    return 0 if result.passed else EXIT_FAILED


def judge(
    before_bundle: Path,
    after_bundle: Path,
    before_embedded: Path,
    after_embedded: Path,
    policy: str | Path,
    out: Path,
    training: Sequence[Path] = (),
) -> GateResult:
    """Judge one bundle against another and write `gate.json`, `gate.md`, `gate.html` and `figures/` to `out`.

    Args:
        before_bundle: folder of the bundle in use.
        after_bundle: folder of the new one.
        before_embedded: held-out patients, embedded with the bundle in use.
        after_embedded: the same patients, embedded with the new one.
        policy: name of a built-in policy, or a YAML file.
        out: folder to write to.
        training: embedded folders of what the new bundle learned from.

    Raises:
        ConfigError: policy or folders are not usable, or do not fit one another. BundleError: a bundle is not whole.
    """
    from dataclasses import replace

    from medvl.evaluation.embedded import Embedded
    from medvl.evaluation.gate import decide
    from medvl.evaluation.gate_policy import load_policy
    from medvl.evaluation.gate_report import write_gate

    rules = load_policy(gate_file(str(policy)))
    one, two = (_subject(b, e) for b, e in ((before_bundle, before_embedded), (after_bundle, after_embedded)))
    known = {f"{folder.parent.name}/{folder.name}": Embedded.load(folder) for folder in training}
    result = decide(one, two, rules, known)
    hashes = {"before": _hash(before_embedded), "after": _hash(after_embedded)}
    record: Mapping[str, Any] = {
        name: {**part, "embedded_sha256": hashes[name]} if name in hashes else part for name, part in result.record.items()
    }
    result = replace(result, record=record)
    write_gate(result, out)
    return result


def list_policies() -> int:
    """Name the built-in policies."""
    for name, summary in gates().items():
        say(f"{name}: {summary}")
    return 0


def _subject(folder: Path, embedded: Path) -> Subject:
    from medvl.evaluation.embedded import Embedded
    from medvl.models.bundle import open_bundle

    from .evaluate import subject_of

    return subject_of(open_bundle(folder), Embedded.load(embedded))


def _hash(folder: Path) -> str:
    """SHA-256 over the files of an embedded cohort."""
    from medvl.models.bundle import fingerprint, sha256_of

    return fingerprint({p.name: sha256_of(p) for p in sorted(folder.iterdir()) if p.suffix in (".parquet", ".safetensors")})
