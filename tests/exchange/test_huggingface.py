"""Folders in the Hugging Face layout: the same numbers, offline, and the same bundle on the way back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, ModelCardData
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from medvl.errors import BundleError, ConfigError
from medvl.exchange.huggingface import MedvlImageProcessor, MedvlModel, write_huggingface
from medvl.exchange.layout import gather
from medvl.imaging.nifti import write_nifti
from medvl.models.bundle import Bundle, load_system, open_bundle
from medvl.models.localiser import Place
from medvl.records import Volume
from medvl.text.prompts import load_findings

SENTENCES = ["Solid mass in the upper pole of the left kidney.", "No stone.", "Cyst of 32 mm."]


@pytest.fixture(scope="module")
def folder(demo: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_huggingface(demo, tmp_path_factory.mktemp("hf") / "demo", "apache-2.0").folder


@pytest.fixture(scope="module")
def model(folder: Path) -> MedvlModel:
    return MedvlModel.from_pretrained(folder)


def test_images_and_texts_are_the_bundles_own(
    demo: Bundle, folder: Path, model: MedvlModel, crops: tuple[Tensor, Tensor]
) -> None:
    pixels, kinds = crops
    clip = load_system(demo).clip
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokens = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    ids, mask = clip.tokenize(SENTENCES)
    assert torch.equal(tokens["input_ids"], ids)
    assert torch.equal(tokens["attention_mask"], mask)
    with torch.no_grad():
        out = model(pixels, tokens["input_ids"], tokens["attention_mask"], kind=kinds)
        image, text = clip.embed_image(pixels, kinds), clip.embed_text(ids, mask)
    assert torch.equal(out.image_embeds, image)
    assert torch.equal(out.text_embeds, text)
    scale = demo.values("metrics.json")["stages"]["align_statements"]["scale"]
    torch.testing.assert_close(out.logits_per_image, scale * image @ text.T)
    assert torch.equal(out.logits_per_text, out.logits_per_image.T)


def test_features_are_those_of_their_region(model: MedvlModel, crops: tuple[Tensor, Tensor]) -> None:
    pixels, kinds = crops
    with torch.no_grad():
        named = model.get_image_features(pixels, region=["kidney_left", "kidney_right", "chest"]).pooler_output
        by_kind = model.get_image_features(pixels, kinds).pooler_output
        as_chest = model.get_image_features(pixels, region="chest").pooler_output
    assert torch.equal(named, by_kind)
    assert not torch.allclose(as_chest[0], named[0])
    assert torch.equal(as_chest[2], named[2])
    with pytest.raises(ConfigError, match="kidney_left, kidney_right, chest"):
        model.get_image_features(pixels)
    with pytest.raises(ConfigError, match="no region kidney_lef"):
        model.get_image_features(pixels, region="kidney_lef")
    with pytest.raises(ConfigError, match="pixel_values, input_ids, or both"):
        model()


def test_processor_follows_the_contract(
    folder: Path, scan: Volume, middles: dict[str, Place], crops: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    processor = MedvlImageProcessor.from_pretrained(folder)
    made = processor(scan, middles)
    assert torch.equal(made["pixel_values"], crops[0])
    assert torch.equal(made["kind"], crops[1])
    assert made["regions"] == ["kidney_left", "kidney_right", "chest"]
    write_nifti(scan, None, tmp_path / "scan.nii.gz")
    assert torch.equal(processor(tmp_path / "scan.nii.gz", middles)["pixel_values"], crops[0])
    image = nib.load(tmp_path / "scan.nii.gz")
    given = processor(np.asarray(image.dataobj), {"chest": middles["chest"].center_lps}, affine=image.affine)
    assert torch.equal(given["pixel_values"], crops[0][2:])
    with pytest.raises(ConfigError, match="needs affine="):
        processor(np.zeros((4, 4, 4)), middles)
    with pytest.raises(ConfigError, match="no region"):
        processor(scan, {})


def test_localiser_travels_along(demo: Bundle, model: MedvlModel, scan: Volume) -> None:
    from medvl.inference.regions import Preparer

    expected = Preparer(demo).localiser.locate(scan)
    for name, place in model.locate(scan).items():
        np.testing.assert_array_equal(place.center_lps, expected[name].center_lps)
        assert place.confidence == expected[name].confidence


def test_auto_classes_and_saving_again(folder: Path, model: MedvlModel, crops: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    assert AutoConfig.from_pretrained(folder).model_type == "medvl"
    model.save_pretrained(tmp_path / "again")
    again, told = AutoModel.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert type(again) is MedvlModel
    assert not again.training
    assert (told["missing_keys"], told["unexpected_keys"]) == ([], [])
    with torch.no_grad():
        assert torch.equal(again(crops[0], kind=crops[1]).image_embeds, model(crops[0], kind=crops[1]).image_embeds)
    assert next(MedvlModel.from_pretrained(folder, dtype="bfloat16").parameters()).dtype == torch.bfloat16


def test_weights_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = MedvlModel.config_class.from_pretrained(folder)
    config.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"no model\.safetensors"):
        MedvlModel.from_pretrained(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["clip.text_projection.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"1 missing \(clip.text_projection.bias\)"):
        MedvlModel.from_pretrained(tmp_path)


def test_the_way_back_gives_the_same_bundle(demo: Bundle, folder: Path, tmp_path: Path) -> None:
    back = gather(folder, tmp_path / "bundle")
    assert back.sha256 == demo.sha256
    assert open_bundle(tmp_path / "bundle").manifest == demo.manifest
    with pytest.raises(ConfigError, match="not empty"):
        gather(folder, tmp_path / "bundle")
    with pytest.raises(BundleError, match="medvl export"):
        gather(tmp_path, tmp_path / "other")


def test_altered_weights_do_not_become_a_bundle(demo: Bundle, tmp_path: Path) -> None:
    folder = write_huggingface(demo, tmp_path / "hf").folder
    model = MedvlModel.from_pretrained(folder)
    with torch.no_grad():
        model.clip.text_projection.bias += 0.01
    model.save_pretrained(folder)
    with pytest.raises(BundleError, match="calibration and limits were fitted to other weights"):
        gather(folder, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_no_file_is_a_pickle(folder: Path) -> None:
    """Every binary file is safetensors and opens as such; everything else is text."""
    for path in (p for p in folder.rglob("*") if p.is_file()):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as held:
                assert list(held.keys())
        else:
            assert path.suffix in (".json", ".yaml", ".md")
            path.read_text(encoding="utf-8")


def test_card_is_what_the_hub_reads(demo: Bundle, folder: Path) -> None:
    held = ModelCard.load(folder / "README.md")
    assert isinstance(held.data, ModelCardData)
    assert (held.data.license, held.data.library_name) == ("apache-2.0", "medvl")
    assert held.data.pipeline_tag == "zero-shot-image-classification"
    found = {result.metric_name: result.metric_value for result in held.data.eval_results}
    scores = demo.values("metrics.json")["validation_auroc"]
    assert found == {f"AUROC, {name}": pytest.approx(value, abs=5e-5) for name, value in scores.items()}
    assert "Not a medical device" in held.text
    assert demo.sha256 in held.text


@pytest.mark.slow
def test_a_fresh_process_offline(folder: Path, model: MedvlModel, crops: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    """As a user who has the folder and no network."""
    code = (
        "import json, sys, torch\n"
        "from medvl.exchange.huggingface import MedvlModel\n"
        "from transformers import PreTrainedTokenizerFast\n"
        "model = MedvlModel.from_pretrained(sys.argv[1])\n"
        "tokens = PreTrainedTokenizerFast.from_pretrained(sys.argv[1])(['No stone.'], return_tensors='pt')\n"
        "with torch.no_grad():\n"
        "    out = model(input_ids=tokens['input_ids'], attention_mask=tokens['attention_mask'])\n"
        "print(json.dumps(out.text_embeds[0].tolist()))\n"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    shown = subprocess.run([sys.executable, "-c", code, folder], env=env, capture_output=True, text=True, check=True, timeout=120)
    ids = torch.tensor([Tokenizer.from_file(str(folder / "tokenizer.json")).encode("No stone.").ids])
    with torch.no_grad():
        expected = functional.normalize(model.get_text_features(ids).pooler_output, dim=-1)
    torch.testing.assert_close(torch.tensor(json.loads(shown.stdout)), expected[0], rtol=1e-5, atol=1e-6)


def test_prompts_as_findings_ask_them(demo: Bundle, folder: Path, model: MedvlModel) -> None:
    """Mean of the embedded sentences of a finding, brought to unit length, is the row that the bundle keeps."""
    finding = load_findings(demo.text("findings.yaml"))["renal_stone"]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    bank = demo.tensors("bank.safetensors")["renal_stone@kidney_left"]
    for row, sentences in enumerate(finding.prompts("kidney_left")):
        tokens = tokenizer(sentences, padding=True, return_tensors="pt")
        with torch.no_grad():
            units = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).text_embeds
        torch.testing.assert_close(functional.normalize(units.mean(0), dim=0), bank[row], rtol=1e-3, atol=1e-3)
