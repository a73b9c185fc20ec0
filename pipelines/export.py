"""`medvl export`: a bundle in the layout of other software; `medvl import-bundle`: back again, with the same hash."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medvl.errors import ConfigError

from .built_in import bundle_folder, bundles
from .console import say, table, warn

if TYPE_CHECKING:
    from medvl.models.bundle import Bundle
    from medvl.records import Volume

APACHE = "apache-2.0"


def run(name: str, to: str, out: Path, *, license_id: str | None = None, check: Path | None = None) -> int:
    """Exit code 0 with the export in `out`.

    Args:
        name: bundle name or folder.
        to: huggingface, monai, onnx or torch-export.
        out: not there, or empty.
        license_id: of the weights; that of medvl for built-in bundles.
        check: scan to check graphs with; phantoms by default.

    Raises:
        BundleError: the bundle is not whole.
        ConfigError: `out` is not empty, or a package is missing.
        ParityError: an exported graph gives other numbers than the model.
    """
    from medvl.models.bundle import open_bundle

    bundle = open_bundle(bundle_folder(name))
    chosen = license_id or (APACHE if name in bundles() else None)
    if to == "huggingface":
        return _huggingface(bundle, out, chosen)
    if to == "monai":
        return _monai(bundle, out, chosen)
    return _graphs(bundle, out, to, check)


def import_bundle(folder: Path, out: Path) -> int:
    """Exit code 0 with the bundle in `out`.

    Raises:
        BundleError: the folder is no export of medvl, or was altered since.
        ConfigError: `out` is not empty.
    """
    from medvl.exchange.layout import gather

    inner = folder / "models"
    bundle = gather(inner if (inner / "medvl").is_dir() else folder, out)
    say(f"{out}: bundle {bundle.name}, {bundle.sha256[:12]}, as it was exported")
    return 0


def _huggingface(bundle: Bundle, out: Path, license_id: str | None) -> int:
    from medvl.exchange.huggingface import write_huggingface

    if license_id is None:
        warn("no --license given: the card says `other`; name the licence of the weights before you share them")
    write_huggingface(bundle, out, license_id or "other")
    say(f"{out}: Hugging Face layout of {bundle.name}, {_size(out)}")
    say(f"Load it: medvl.exchange.MedvlModel.from_pretrained({str(out)!r})")
    say(f"Back again: medvl import-bundle {out} --out BUNDLE")
    return 0


def _monai(bundle: Bundle, out: Path, license_id: str | None) -> int:
    from medvl.exchange.monai_bundle import write_monai

    write_monai(bundle, out, f"{license_id}\n" if license_id else "")
    say(f"{out}: MONAI Bundle of {bundle.name}, {_size(out)}")
    say(f"Run it: cd {out} && python -m monai.bundle run --config_file configs/inference.json --image SCAN --output_dir OUT")
    return 0


def _graphs(bundle: Bundle, out: Path, to: str, check: Path | None) -> int:
    from medvl.exchange.graphs import write_graphs

    told = write_graphs(bundle, out, "onnx" if to == "onnx" else "torch-export", [_scan(check)] if check else ())
    rows = []
    for held in told["graphs"].values():
        gap = held["difference"]
        rows.append(
            [held["file"], str(held["rows_checked"]), f"{gap['max_abs']:.1e}", f"{gap['max_rel']:.1e}", f"{gap['cosine']:.7f}"]
        )
    heading = f"Against the model, {told['checked_with']}; at most {told['tolerance']:.0e} of the largest value may differ"
    table(["graph", "rows", "largest difference", "of the largest value", "least cosine"], rows, title=heading)
    say(f"{out}: {_size(out)}" + (f", opset {told['opset']}" if told["opset"] else ""))
    return 0


def _scan(path: Path) -> Volume:
    from medvl.imaging.load import load

    found = load(path).chosen
    if found is None:
        raise ConfigError("--check needs a CT volume; see `medvl inspect`")
    return found.read()


def _size(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB"
