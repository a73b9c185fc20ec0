"""A bundle is used whole and unaltered, or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import GRID, Tiny
from tokenizers import Tokenizer

from medvl.errors import BundleError
from medvl.inference.predictor import Predictor
from medvl.models.bundle import REQUIRED, open_bundle
from medvl.models.clip import RegionClip
from medvl.models.config import ClipConfig
from medvl.training.finish import half


@pytest.fixture
def copy(tiny_run: Tiny, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may spoil."""
    return Path(shutil.copytree(tiny_run.bundle, tmp_path / "bundle"))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "bundle.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_bundle_is_whole(tiny_run: Tiny) -> None:
    bundle = open_bundle(tiny_run.bundle)
    assert set(bundle.manifest["files"]) >= set(REQUIRED)
    for name, expected in bundle.manifest["files"].items():
        assert hashlib.sha256((tiny_run.bundle / name).read_bytes()).hexdigest() == expected
    assert bundle.contract["chest"].grid_dhw == GRID
    assert bundle.sha256[:12] in tiny_run.printed


@pytest.mark.parametrize("name", REQUIRED)
def test_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        open_bundle(copy)


def test_file_that_the_manifest_does_not_list(copy: Path) -> None:
    rewrite(copy, lambda values: values["files"].pop("calibration.json"))
    with pytest.raises(BundleError, match=r"does not list calibration\.json"):
        open_bundle(copy)


def test_one_altered_bit(copy: Path) -> None:
    path = copy / "weights.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(BundleError, match=r"weights\.safetensors was altered"):
        open_bundle(copy)


def test_extra_file(copy: Path) -> None:
    (copy / "surprise.py").write_text("pass")
    with pytest.raises(BundleError, match=r"does not list: surprise\.py"):
        open_bundle(copy)


def test_contract_changed_together_with_its_file_hash(copy: Path) -> None:
    path = copy / "contract.json"
    values = json.loads(path.read_text())
    values["regions"][0]["spacing_mm"][0] += 0.5
    path.write_text(json.dumps(values))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    rewrite(copy, lambda manifest: manifest["files"].update({"contract.json": digest}))
    with pytest.raises(BundleError, match="contract"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["../outside.txt", "inner/../../outside.txt"])
def test_path_that_leads_outside(copy: Path, name: str) -> None:
    outside = copy.parent / "outside.txt"
    outside.write_text("secret")
    (copy / "inner").mkdir()
    digest = hashlib.sha256(outside.read_bytes()).hexdigest()
    rewrite(copy, lambda values: values["files"].update({name: digest}))
    with pytest.raises(BundleError, match="outside the bundle"):
        open_bundle(copy)


def test_link_that_leads_outside(copy: Path) -> None:
    moved = copy.parent / "weights.safetensors"
    (copy / "weights.safetensors").rename(moved)
    (copy / "weights.safetensors").symlink_to(moved)
    with pytest.raises(BundleError, match="outside the bundle"):
        open_bundle(copy)


@pytest.mark.parametrize("text", ['{"schema": "medvl.bundle/2"}', "[]", "{", "", b"\xff\xfe\x00{"])
def test_other_schema_or_no_json(copy: Path, text: str | bytes) -> None:
    (copy / "bundle.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BundleError):
        open_bundle(copy)


def test_no_bundle_here(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle\.json"):
        open_bundle(tmp_path)


def test_half_precision_weights_answer_as_the_rounded_model_does(tiny_run: Tiny) -> None:
    bundle = open_bundle(tiny_run.bundle)
    shapes = bundle.values("model.json")
    rounded = RegionClip(ClipConfig.model_validate(shapes["clip"]), Tokenizer.from_str(bundle.text("tokenizer.json")))
    (last,) = (tiny_run.out / "stages").glob("align_statements-*/weights.safetensors")
    prefix = "system.clip."
    rounded.load_state_dict({k.removeprefix(prefix): v for k, v in load_file(last).items() if k.startswith(prefix)})
    half(rounded)
    rounded.eval()
    loaded = Predictor(bundle).clip
    for (name, a), b in zip(rounded.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    pixels, kinds = torch.rand(2, 2, *GRID), torch.tensor([0, 1])
    with torch.no_grad():
        assert torch.equal(rounded.embed_image(pixels, kinds), loaded.embed_image(pixels, kinds))
    assert load_file(tiny_run.bundle / "weights.safetensors")["clip.text_projection.weight"].dtype == torch.float16
