"""A bundle as a MONAI Bundle, which `python -m monai.bundle run` runs on a scan where medvl is installed.

MONAI's specification asks for `models/model.pt`, a pickled state dict. A pickle runs code on loading, so there is none, nor a
TorchScript file, which holds pickles in a zip; the weights are `models/model.safetensors`.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medvl import __version__
from medvl.exchange.layout import LaidOut, growing, lay_out, open_laid_out
from medvl.models.bundle import Bundle
from medvl.models.config import ClipConfig
from medvl.records import RESEARCH_USE

SCHEMA_URL = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
PACKAGES = ("nibabel", "safetensors", "tokenizers", "transformers", "pydantic", "scipy")
_PARTS = "medvl.exchange.monai_parts."
_MODELS = "$@bundle_root + '/models'"

INFERENCE: dict[str, Any] = {
    "imports": ["$import glob", "$import os", "$import torch"],
    "bundle_root": ".",
    "dataset_dir": "$@bundle_root + '/scans'",
    "image": "$None",
    "output_dir": "$@bundle_root + '/eval'",
    "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
    "images": "$[@image] if @image else sorted(glob.glob(os.path.join(@dataset_dir, '*.nii*')))",
    "network_def": {"_target_": _PARTS + "RegionNetwork", "models": _MODELS},
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": _PARTS + "LoadScand", "keys": "image"},
            {"_target_": _PARTS + "RegionsFromScand", "keys": "image", "models": _MODELS},
        ],
    },
    "dataset": {"_target_": "Dataset", "data": "$[{'image': path} for path in @images]", "transform": "@preprocessing"},
    "inferer": {"_target_": _PARTS + "RegionInferer"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": _PARTS + "Conclude", "network": "@network"},
            {"_target_": "medvl.exchange.monai_save.SaveFindings", "output_dir": "@output_dir", "network": "@network"},
        ],
    },
    "evaluator": {
        "_target_": _PARTS + "Evaluator",
        "dataset": "@dataset",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
    },
    "run": ["$@evaluator.run()"],
}


def write_monai(bundle: Bundle, out: Path, license_text: str = "") -> LaidOut:
    """Write `bundle` to the folder `out` as a MONAI Bundle; returns what lies in `OUT/models`.

    Args:
        bundle: opened.
        out: not there, or empty.
        license_text: of the weights, for `LICENSE`.

    Raises:
        ConfigError: `out` is not empty.
    """
    with growing(out) as part:
        for name in ("configs", "models", "docs"):
            (part / name).mkdir()
        lay_out(bundle, part / "models")
        for name, values in (("metadata", metadata(bundle)), ("inference", INFERENCE)):
            (part / "configs" / f"{name}.json").write_text(json.dumps(values, indent=4) + "\n", encoding="utf-8")
        (part / "docs" / "README.md").write_text(_readme(bundle), encoding="utf-8")
        (part / "LICENSE").write_text(license_text or "The owner of the weights did not name a licence.\n", encoding="utf-8")
    return open_laid_out(out / "models")


def metadata(bundle: Bundle) -> dict[str, Any]:
    """`metadata.json`: what goes in and comes out, versions, and the hash of the bundle it came from."""
    scores = bundle.values("metrics.json").get("validation_auroc", {}) if "metrics.json" in bundle else {}
    return {
        "schema": SCHEMA_URL,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by medvl {__version__} from bundle {bundle.sha256}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"medvl": __version__, **{name: version(name) for name in PACKAGES}},
        "name": bundle.name,
        "task": "Findings in CT: probabilities, verdicts and embeddings of regions",
        "description": "Finds regions on a CT scan, embeds each, gives findings with calibrated probabilities. " + RESEARCH_USE,
        "authors": "see docs/README.md",
        "copyright": "see LICENSE",
        "data_type": "CT as NIfTI or DICOM",
        "image_classes": "HU windows of a region, scaled to [0, 1]",
        "pred_classes": "unit embedding, or log odds of concept streams",
        "eval_metrics": {f"validation_auroc_{k}": round(v, 4) for k, v in scores.items() if v is not None},
        "intended_use": RESEARCH_USE,
        "references": [],
        "network_data_format": _formats(bundle),
    }


def _formats(bundle: Bundle) -> dict[str, Any]:
    """Of the first region, whose kind the network takes when no other is named."""
    first = bundle.contract[next(iter(bundle.kinds.values()))[0]]
    shapes = bundle.values("model.json")
    concepts = shapes.get("concepts")
    named = None if concepts is None else [*concepts["findings"], *concepts["anatomies"]]
    size = ClipConfig.model_validate(shapes["clip"]).embed_dim if named is None else len(named)
    image = {
        "type": "image",
        "format": "hounsfield",
        "modality": "CT",
        "num_channels": len(first.windows_hu),
        "spatial_shape": list(first.grid_dhw),
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": True,
        "channel_def": {str(k): f"{low:g} to {high:g} HU" for k, (low, high) in enumerate(first.windows_hu)},
    }
    pred = {
        "type": "tuples",
        "format": "latent",
        "modality": "n/a",
        "num_channels": size,
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": [-1, 1] if named is None else [],
        "is_patch_data": False,
        "channel_def": {str(k): name for k, name in enumerate(named or [f"coordinate {k}" for k in range(size)])},
    }
    return {"inputs": {"image": image}, "outputs": {"pred": pred}}


def _readme(bundle: Bundle) -> str:
    return f"""# {bundle.name}, a MONAI Bundle

{RESEARCH_USE}

Needs medvl {__version__} (`pip install 'medvl[monai]=={__version__}'`, which brings MONAI and the `fire` that its command wants).

    cd FOLDER_OF_THIS_BUNDLE
    python -m monai.bundle run --config_file configs/inference.json --image scan.nii.gz --output_dir out

`--image` may also be a DICOM folder; without it every NIfTI file in `--dataset_dir` is read. `--bundle_root` names this folder
when the command is run from elsewhere.

What comes out: `out/findings.csv`, a row for each finding of each region with score, verdict and reasons;
`out/studies/ID/findings.json` and `embeddings.safetensors`; `medvl view --results out` shows them. The numbers are those of
`medvl infer` with the same bundle (`{bundle.sha256}`), which adds heat maps and deletion tests. `medvl import-bundle models
--out BUNDLE` gives that bundle back.

`network_def` of `configs/inference.json` is a plain module: HU windows (B, C, D, H, W) of a region to answers (B, K).

**No pickle.** MONAI's specification names `models/model.pt`, a pickled state dict; opening one can run code. The weights here are
`models/model.safetensors`, checked against `models/medvl/bundle.json` before they are used. There is no TorchScript file either.

---

{bundle.text("README.md")}"""
