"""Graphs of a bundle's towers: the model's numbers on other batches and sizes, and a refusal where they differ."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import Tiny
from torch import Tensor

from medvl.errors import ConfigError
from medvl.exchange import graphs
from medvl.exchange.graphs import pickles_in, to_archive, write_graphs
from medvl.exchange.parity import Difference, ParityError, check, difference
from medvl.exchange.sides import Side, sides_of
from medvl.models.bundle import Bundle, load_system, open_bundle
from medvl.models.localiser import Place
from medvl.records import Volume


@pytest.fixture(scope="module")
def parts(demo: Bundle) -> dict[str, Side]:
    return {side.name: side for side in sides_of(demo)}


def test_sides_are_the_towers(demo: Bundle, parts: dict[str, Side], crops: tuple[Tensor, Tensor]) -> None:
    clip = load_system(demo).clip
    with torch.no_grad():
        image, pooled = parts["image"].module(*crops)
        assert torch.equal(image, clip.embed_image(*crops))
        assert torch.equal(pooled, clip.pooled(*crops))
        ids, mask = clip.tokenize(["No stone.", "Large mass of the left kidney."])
        assert torch.equal(parts["text"].module(ids, mask), clip.embed_text(ids, mask))
    assert len(parts["image"].inputs["kind"]) == 9
    assert set(parts["image"].inputs["kind"].tolist()) == {0, 1}


@pytest.mark.slow
def test_onnx_export_runs_alone(tiny_run: Tiny, scan: Volume, middles: dict[str, Place], tmp_path: Path) -> None:
    """With nothing but onnxruntime and the files of the export."""
    onnx, onnxruntime = (pytest.importorskip(name) for name in ("onnx", "onnxruntime"))
    pytest.importorskip("onnxscript")
    bundle = open_bundle(tiny_run.bundle)
    told = write_graphs(bundle, tmp_path / "out", "onnx")
    assert json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8")) == told
    for held in told["graphs"].values():
        assert held["difference"]["max_rel"] < 1e-4
        model = onnx.load(tmp_path / "out" / held["file"])
        onnx.checker.check_model(model)
        assert [each.version for each in model.opset_import if not each.domain] == [20]
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "image.onnx"), providers=["CPUExecutionProvider"])
    clip = load_system(bundle).clip
    every = [bundle.contract.apply(scan, middles[name].center_lps, name).pixels for name in bundle.contract.names]
    for rows in (1, 2, 3):
        pixels, kinds = torch.stack([torch.from_numpy(each) for each in every[:rows]]), torch.tensor([0, 0, 1][:rows])
        found = session.run(["image_embeds"], {"pixel_values": pixels.numpy(), "kind": kinds.numpy()})[0]
        with torch.no_grad():
            np.testing.assert_allclose(found, clip.embed_image(pixels, kinds).numpy(), atol=1e-5)
    shapes = told["graphs"]["text"]["inputs"]["input_ids"]["shape"]
    assert shapes == ["batch", "tokens"]


def test_archives_hold_no_pickle_and_the_same_numbers(parts: dict[str, Side], tmp_path: Path) -> None:
    side = parts["localiser"]
    run = to_archive(side, tmp_path / "localiser.pt2")
    assert pickles_in(tmp_path / "localiser.pt2") == []
    assert max(d.max_rel for d in graphs.measure(side, run)) < 1e-5


def test_a_pickle_in_an_archive_is_seen(parts: dict[str, Side], tmp_path: Path) -> None:
    """What torch writes when it is left to itself holds the example inputs as a pickle."""
    torch.export.save(graphs.trace(parts["localiser"]), tmp_path / "localiser.pt2")
    assert any(name.endswith("model.pt") for name in pickles_in(tmp_path / "localiser.pt2"))


def test_other_numbers_are_refused_and_nothing_stays(
    demo: Bundle, parts: dict[str, Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = parts["text"]

    def off(given: dict[str, Tensor]) -> list[np.ndarray]:
        with torch.no_grad():
            return [side.module(*given.values()).numpy() * 1.01]

    monkeypatch.setattr(graphs, "sides_of", lambda *_: [side])
    monkeypatch.setattr(graphs, "to_archive", lambda *_: off)
    with pytest.raises(ParityError, match=r"text: the exported graph differs from the model by 1\.0e-02"):
        write_graphs(demo, tmp_path / "out", "torch-export")
    assert list(tmp_path.iterdir()) == []


def test_differences_by_hand() -> None:
    a = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    b = np.array([[3.0, 4.5], [0.0, 0.0]], np.float32)
    found = difference(a, b)
    assert found.max_abs == 0.5
    assert found.max_rel == 0.125
    assert found.cosine == pytest.approx((9 + 18) / (5 * np.hypot(3, 4.5)))
    with pytest.raises(ParityError, match="not finite"):
        difference(a, b * np.nan)
    with pytest.raises(ParityError, match=r"shape \(1, 2\)"):
        difference(a, b[:1])
    check("x", [Difference(1.0, 9e-5, 1.0)])
    with pytest.raises(ParityError, match=r"cosine 0\.990000"):
        check("x", [Difference(0.0, 0.0, 0.99)])


def test_missing_packages_are_named(demo: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "find_spec", lambda name: None if name == "onnxruntime" else SimpleNamespace())
    with pytest.raises(ConfigError, match="onnxruntime, which are not installed"):
        write_graphs(demo, tmp_path / "out", "onnx")
