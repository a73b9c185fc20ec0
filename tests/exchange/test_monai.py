"""MONAI bundles: run by MONAI's own commands, with the numbers of medvl's own inference."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, create_workflow, verify_metadata, verify_net_in_out
from monai.bundle import run as run_bundle
from monai.data import NibabelReader
from safetensors.torch import load_file
from torch import Tensor

from medvl.exchange.layout import gather
from medvl.exchange.monai_bundle import write_monai
from medvl.exchange.monai_parts import LoadScand, RegionNetwork
from medvl.imaging.nifti import read_nifti, write_nifti
from medvl.inference.answers import CaseResult
from medvl.inference.predictor import Predictor
from medvl.models.bundle import Bundle, load_system
from medvl.records import Volume

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI says that a configuration is code, which it is

# The keys that MONAI's bundle specification calls mandatory; its schema file itself lies behind a network.
TENSOR = ("type", "format", "modality", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def")
KEYS = ("version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task", "description")
SPECIFIED = {
    "type": "object",
    "required": [*KEYS, "authors", "copyright", "network_data_format"],
    "properties": {
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "monai_version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "required_packages_version": {"type": "object", "additionalProperties": {"type": "string"}},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "additionalProperties": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {
                    "type": "object",
                    "required": list(TENSOR),
                    "properties": {
                        "type": {"enum": ["image", "series", "tuples", "probabilities"]},
                        "num_channels": {"type": "integer", "minimum": 1},
                        "spatial_shape": {"type": "array"},
                        "dtype": {"type": "string"},
                        "value_range": {"type": "array"},
                        "is_patch_data": {"type": "boolean"},
                        "channel_def": {"type": "object"},
                    },
                },
            },
        },
    },
}


@pytest.fixture(scope="module")
def folder(demo: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("monai") / "demo"
    write_monai(demo, out, "A licence.\n")
    return out


@pytest.fixture(scope="module")
def file(scan: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scans") / "one.nii.gz"
    write_nifti(scan, None, path)
    return path


@pytest.fixture(scope="module")
def expected(demo: Bundle, file: Path) -> CaseResult:
    return Predictor(demo).predict(read_nifti(file), explain=False)


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def same(expected: CaseResult, out: Path) -> None:
    """The table and the embeddings say what medvl itself says."""
    told = {(row["region"], row["finding"]): row for row in rows(out / "findings.csv")}
    assert set(told) == {(f.region, f.finding.key) for f in expected.findings}
    for found in expected.findings:
        row = told[found.region, found.finding.key]
        assert row["verdict"] == found.verdict
        assert row["reasons"] == ";".join(reason.code for reason in found.reasons)
        for name in ("score", "margin"):
            value = getattr(found, name)
            assert (row[name] == "") == (value is None)
            assert value is None or float(row[name]) == pytest.approx(value, abs=2e-4)  # other threads add in another order
    (path,) = out.glob("studies/*/embeddings.safetensors")
    held = load_file(path)
    assert set(held) == {name for name, region in expected.regions.items() if region.embedding is not None}
    for name, value in held.items():
        torch.testing.assert_close(value, expected.regions[name].embedding, atol=1e-5, rtol=0)


def test_monai_says_what_medvl_says(folder: Path, file: Path, expected: CaseResult, tmp_path: Path) -> None:
    config = str(folder / "configs" / "inference.json")
    run_bundle(
        config_file=config, bundle_root=str(folder), image=str(file), output_dir=str(tmp_path), device="$torch.device('cpu')"
    )
    assert len(expected.findings) >= 12
    same(expected, tmp_path)
    record = json.loads(next(tmp_path.glob("studies/*/findings.json")).read_text(encoding="utf-8"))
    assert "not a medical device" in record["research_use"].lower()


@pytest.mark.slow
def test_the_command_of_monai_runs_it(folder: Path, file: Path, expected: CaseResult, tmp_path: Path) -> None:
    pytest.importorskip("fire")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    given = ["--image", str(file), "--output_dir", str(tmp_path), "--device", "$torch.device('cpu')"]
    subprocess.run([*command, *given], cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    same(expected, tmp_path)


def test_every_nifti_of_a_folder_is_read(folder: Path, file: Path, expected: CaseResult, tmp_path: Path) -> None:
    config = str(folder / "configs" / "inference.json")
    run_bundle(config_file=config, bundle_root=str(folder), dataset_dir=str(file.parent), output_dir=str(tmp_path))
    assert {row["image"] for row in rows(tmp_path / "findings.csv")} == {"one.nii.gz"}


def test_a_scan_without_regions_is_answered_by_reasons(folder: Path, scan: Volume, tmp_path: Path) -> None:
    """Two slices hold no kidney: nothing is read, and every finding says why."""
    write_nifti(scan.hu[:2], scan.geometry.crop((0, 0, 0), (2, *scan.hu.shape[1:])), tmp_path / "two.nii")
    config = str(folder / "configs" / "inference.json")
    run_bundle(config_file=config, bundle_root=str(folder), image=str(tmp_path / "two.nii"), output_dir=str(tmp_path / "out"))
    told = rows(tmp_path / "out" / "findings.csv")
    assert {row["verdict"] for row in told} == {"undecided"}
    assert all(row["score"] == "" and row["reasons"] for row in told)
    assert not list((tmp_path / "out").glob("studies/*/embeddings.safetensors"))


def test_required_properties_are_there(folder: Path) -> None:
    workflow = create_workflow(
        config_file=str(folder / "configs" / "inference.json"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(folder),
    )
    assert workflow.check_properties() == []


def test_network_takes_and_gives_what_the_metadata_say(folder: Path, demo: Bundle) -> None:
    configs = folder / "configs"
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
        bundle_root=str(folder),
    )
    said = json.loads((configs / "metadata.json").read_text(encoding="utf-8"))
    assert said["network_data_format"]["inputs"]["image"]["channel_def"] == {"0": "-150 to 250 HU", "1": "-200 to 1000 HU"}
    assert demo.sha256 in said["changelog"]["0.1.0"]


def test_metadata_hold_what_the_specification_asks(folder: Path, tmp_path: Path) -> None:
    """By MONAI's own command, against the specification's mandatory keys: it takes a schema file that is already there."""
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SPECIFIED), encoding="utf-8")
    digest = hashlib.sha256(schema.read_bytes()).hexdigest()
    given = {"filepath": str(schema), "hash_val": digest, "hash_type": "sha256"}
    verify_metadata(meta_file=str(folder / "configs" / "metadata.json"), **given)
    broken = ConfigParser.load_config_file(str(folder / "configs" / "metadata.json"))
    del broken["network_data_format"]["outputs"]["pred"]["dtype"]
    (tmp_path / "broken.json").write_text(json.dumps(broken), encoding="utf-8")
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(tmp_path / "broken.json"), **given)


def test_network_alone(folder: Path, demo: Bundle, crops: tuple[Tensor, Tensor]) -> None:
    network = RegionNetwork(str(folder / "models"))
    pixels, kinds = crops
    with torch.no_grad():
        assert torch.equal(network(pixels[:2]), load_system(demo).clip.embed_image(pixels[:2], kinds[:2]))
        assert torch.equal(network(pixels, 1), load_system(demo).clip.embed_image(pixels, torch.ones_like(kinds)))


def test_scans_are_loaded_as_monai_loads_them(file: Path, scan: Volume) -> None:
    loaded = LoadScand("image")({"image": str(file)})["image"]
    np.testing.assert_array_equal(loaded.numpy()[0], scan.hu.transpose(2, 1, 0))
    reader = NibabelReader()
    values, meta = reader.get_data(reader.read(str(file)))
    np.testing.assert_array_equal(loaded.numpy()[0], values)
    np.testing.assert_allclose(loaded.affine, meta["affine"], atol=1e-4)


def test_layout_and_the_way_back(folder: Path, demo: Bundle, tmp_path: Path) -> None:
    for name in ("configs/metadata.json", "configs/inference.json", "docs/README.md", "LICENSE", "models/model.safetensors"):
        assert (folder / name).is_file()
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds == {".json", ".md", "", ".safetensors", ".yaml"}
    assert gather(folder / "models", tmp_path / "back").sha256 == demo.sha256
