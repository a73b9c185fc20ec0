"""`medvl bundle`: what ships, and whether a bundle is whole."""

from __future__ import annotations

from .built_in import bundle_folder, bundles
from .console import say, table


def list_built_in() -> int:
    """Print the built-in bundles."""
    import json

    rows = []
    for name, folder in bundles().items():
        manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        rows.append([name, manifest["software"], f"{size / 1e6:.1f} MB", manifest["contract_hash"][:12]])
    table(["bundle", "made by", "size", "contract"], rows)
    return 0


def verify(name: str) -> int:
    """Check every hash and the contract.

    Raises:
        BundleError: naming the file that is missing, added or altered.
    """
    from medvl.models.bundle import open_bundle

    bundle = open_bundle(bundle_folder(name))
    n = len(bundle.manifest["files"])
    say(f"{bundle.name}: {n} files match, contract {bundle.contract.hash[:12]}, bundle {bundle.sha256[:12]}")
    return 0
