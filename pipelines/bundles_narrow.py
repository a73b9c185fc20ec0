"""`medvl bundles narrow`: a bundle that answers for fewer kinds of region."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .built_in import bundle_folder, recipe_called
from .console import emit_json, err, say, warn


def run(name: str, kinds: Sequence[str], out: Path, store: Path | None = None, *, as_json: bool = False) -> int:
    """Exit code 0 with the new bundle in `out`.

    Raises:
        BundleError: the bundle is unknown or not whole.
        ConfigError: see `medvl.retraining.narrow.narrow`.
    """
    with err().status("reading the bundle"):
        from medvl.models.bundle import open_bundle
        from medvl.retraining.narrow import narrow

        bundle = open_bundle(bundle_folder(name, store))
        made = narrow(bundle, kinds, out, recipe_called(bundle.name))
    if made.survival:
        warn("the survival model reads a region that is left out, so it is left out too")
    kept = list(made.bundle.kinds)
    if as_json:
        told = {"folder": str(out), "bundle": made.bundle.name, "sha256": made.bundle.sha256, "kinds": kept}
        emit_json({**told, "left_out": {"findings": list(made.findings), "survival": made.survival}})
    else:
        say(f"Bundle: {out} ({made.bundle.sha256[:12]}), answers for {', '.join(kept)} as {bundle.name} does")
        say(f"Left out: {', '.join(made.findings)}")
    return 0
