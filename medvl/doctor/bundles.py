"""The bundle: whole, and under which licence? And the licence of medvl itself."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path

from medvl import __version__
from medvl.doctor.check import Check
from medvl.errors import BundleError
from medvl.models.bundle import Bundle, open_bundle
from medvl.records import RESEARCH_USE


def check_bundle(folder: Path | None) -> Iterator[Check]:
    """Every file of a bundle against its SHA-256, its contract, and its licence.

    Args:
        folder: of the bundle; None looks at none.
    """
    if folder is None:
        return
    try:
        bundle = open_bundle(folder)
    except BundleError as error:
        said = str(error).replace(str(folder), "the folder").rstrip(".")
        yield Check("bundle", "files", "problem", f"{said}.", "Copy the bundle again from where it came, whole.")
        return
    n = len(bundle.manifest["files"])
    facts = {
        "name": bundle.name,
        "sha256": bundle.sha256,
        "contract": bundle.contract.hash,
        "made_by": bundle.manifest["software"],
    }
    yield Check("bundle", "files", "ok", f"{bundle.name}: {n} files match, SHA-256 {bundle.sha256[:12]}.", facts=facts)
    yield check_bundle_licence(bundle, folder)


def check_bundle_licence(bundle: Bundle, folder: Path) -> Check:
    """A licence in its manifest or as a file; a built-in bundle, or a copy of one, is under medvl's own."""
    shipped = Path(str(resources.files("medvl_configs"))).glob("bundles/*/bundle.json")
    built_in = any(path.read_bytes() == (folder / "bundle.json").read_bytes() for path in shipped)
    stated = bundle.manifest.get("license") or next((n for n in bundle.manifest["files"] if n.lower().startswith("licen")), None)
    if stated is None and built_in:
        stated = f"{licence()} (built in)"
    if stated is None:
        fix = "Ask who gave you the bundle under which terms it may be used, and note it."
        return Check("bundle", "licence", "warning", f"The bundle {bundle.name} states no licence.", fix)
    return Check("bundle", "licence", "ok", f"{stated}.", facts={"licence": str(stated)})


def licence() -> str:
    """The licence of medvl, as its metadata says."""
    told = metadata.metadata("medvl").json
    return str(told.get("license_expression") or told.get("license") or "Apache-2.0")


def check_notices() -> Iterator[Check]:
    """What everyone who runs this should have read."""
    said = f"medvl {__version__}, {licence()}, without warranty."
    yield Check("notices", "licence", "ok", said, facts={"version": __version__, "licence": licence()})
    yield Check("notices", "use", "ok", RESEARCH_USE)
