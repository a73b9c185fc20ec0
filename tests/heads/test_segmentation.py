"""Segmentation heads: any encoder, grids that are no cubes, learning that can be seen, and the same masks after a round trip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.evaluation.overlap import pooled_dice
from medvl.geometry import Geometry
from medvl.heads.segment_net import SegmentationNet, feature_maps, tapped
from medvl.heads.segment_train import LabelledCrops, SegmentTraining, label_map, train_segmentation
from medvl.heads.segmentation import SegmentationHead, SegmentConfig
from medvl.imaging.nifti import read_labels
from medvl.imaging.preprocess import Contract, RegionSpec, to_hu_grid, window
from medvl.models.config import ImageTowerConfig
from medvl.models.encoder import image_encoder
from medvl.records import Volume

GRID = (16, 18, 21)
WINDOWS = ((-150.0, 250.0), (-200.0, 1000.0))
CONTRACT = Contract(tuple(RegionSpec(name, GRID, (4.0, 3.0, 2.5), WINDOWS) for name in ("kidney_left", "kidney_right")))
TOWER = ImageTowerConfig(widths=(8, 8, 8, 8), token_dim=8)
CONFIG = SegmentConfig(classes=("renal_mass", "renal_cyst"), regions=("kidney_left", "kidney_right"), width=8, most=8)


def crops(n: int, seed: int = 0) -> LabelledCrops:
    """Noise with a bright and a dark box in most crops."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(30, 15, (n, *GRID)).astype(np.int16)
    labels = np.zeros((n, *GRID), np.uint8)
    for i in range(n - 1):
        for k, value in ((1, 160), (2, -60)):
            d, h, w = (int(rng.integers(1, side - 7)) for side in GRID)
            labels[i, d : d + 6, h : h + 6, w : w + 6] = k
            hu[i][labels[i] == k] += value
    regions = tuple(CONTRACT.names[i % 2] for i in range(n))
    return LabelledCrops(hu, labels, regions, tuple(f"p{i // 2}" for i in range(n)))


@pytest.mark.parametrize(
    ("name", "options", "grid"),
    [
        ("resnet10", {"widths": (4, 4, 8, 8), "stem_kernel": 3, "max_pool": False}, (32, 16, 20)),
        ("segresnet", {"filters": 8, "blocks": (1, 1, 1)}, GRID),
        (
            "swin_unetr",
            {"feature_size": 12, "heads": (1, 1, 2, 2), "depths": (1, 1, 1, 1), "window": 3, "stage": 2},
            (16, 16, 24),
        ),
        ("vit", {"patch": 8, "width": 24, "depth": 1, "heads": 2}, (16, 16, 24)),
        ("region_resnet", {}, GRID),
    ],
)
def test_logits_have_the_grid_of_the_pixels(name: str, options: dict[str, object], grid: tuple[int, int, int]) -> None:
    config = ImageTowerConfig(**{**TOWER.model_dump(), "name": name, "options": options, "grid_dhw": grid})
    encoder = image_encoder(config)
    net = SegmentationNet(encoder, grid, 2, 3, 8, 8).eval()
    pixels = torch.rand(2, 2, *grid)
    assert net(pixels).shape == (2, 3, *grid)
    maps = feature_maps(encoder, pixels)
    assert [m[0, 0].numel() for m in maps] == sorted((m[0, 0].numel() for m in maps), reverse=True)
    assert len(maps) == {"resnet10": 4, "segresnet": 3, "swin_unetr": 2, "vit": 1, "region_resnet": 5}[name]
    net(pixels).square().mean().backward()
    assert all(p.grad is not None for p in net.decoder())
    assert any(p.grad is not None and bool(p.grad.any()) for p in encoder.parameters())
    assert not any(module._forward_hooks for module in encoder.modules())


@pytest.fixture
def trained() -> SegmentationHead:
    """A head after two steps."""
    head = SegmentationHead.build(CONFIG, CONTRACT, TOWER, seed=1)
    train_segmentation(head.net, crops(5), CONTRACT, SegmentTraining(steps=2, batch=2))
    return head


@pytest.mark.slow
def test_learns_what_can_be_learned() -> None:
    head = SegmentationHead.build(CONFIG, CONTRACT, TOWER, seed=1)
    how = SegmentTraining(steps=100, batch=4, learning_rate=1e-2, warmup=3, encoder_factor=1.0)
    losses = train_segmentation(head.net, crops(9), CONTRACT, how)
    assert losses[-1] < 0.3 * losses[0]
    new = crops(7, seed=5)
    found = [head.labels(p) for p in head.probabilities(new.pixels(range(7), CONTRACT)).numpy()]
    for k in (1, 2):
        assert pooled_dice([f == k for f in found], [r == k for r in new.labels]) > 0.55


def test_saved_and_loaded_head_gives_the_same_masks_on_a_scan(trained: SegmentationHead, tmp_path: Path) -> None:
    """Inference is the crop of the contract, and its NIfTI lies where the region does."""
    trained.thresholds, trained.source = (0.3, 0.35), {"weights_sha256": "0" * 64}
    trained.save(tmp_path / "head")
    again = SegmentationHead.load(tmp_path / "head")
    assert (again.thresholds, again.source, again.config) == (trained.thresholds, trained.source, trained.config)
    volume = Volume(
        np.random.default_rng(1).normal(40, 60, (30, 40, 44)).astype(np.int16),
        Geometry.centered((20.0, -30.0, 100.0), (30, 40, 44), (3.0, 2.0, 1.8)),
    )
    center = (22.0, -28.0, 101.0)
    one, two = trained.segment(volume, "kidney_right", center), again.segment(volume, "kidney_right", center)
    np.testing.assert_array_equal(one.labels, two.labels)
    assert one.labels.any()
    hu = to_hu_grid(volume, CONTRACT["kidney_right"].geometry(center), fill=CONTRACT.fill_hu)
    by_hand = trained.probabilities(torch.from_numpy(window(hu, WINDOWS))[None])[0].numpy()
    np.testing.assert_array_equal(one.labels, trained.labels(by_hand))
    one.write(tmp_path / "mask.nii.gz")
    labels, geometry = read_labels(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(labels, one.labels)
    assert geometry == CONTRACT["kidney_right"].geometry(center)
    assert one.volume_ml("renal_mass") == pytest.approx((labels == 1).sum() * 4.0 * 3.0 * 2.5 / 1000)


def test_a_frozen_encoder_stays_as_it_is_and_a_pretrained_one_is_copied() -> None:
    tower = image_encoder(TOWER)
    head = SegmentationHead.build(CONFIG, CONTRACT, TOWER, tower)
    before = {k: v.clone() for k, v in tower.state_dict().items()}
    train_segmentation(head.net, crops(5), CONTRACT, SegmentTraining(steps=2, batch=2, frozen=True))
    for name, value in head.net.encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    train_segmentation(head.net, crops(5), CONTRACT, SegmentTraining(steps=2, batch=2))
    changed = [not torch.equal(v, before[k]) for k, v in head.net.encoder.state_dict().items()]
    assert sum(changed) > len(changed) // 2
    assert all(torch.equal(v, before[k]) for k, v in tower.state_dict().items())


def test_thresholds_decide_between_classes() -> None:
    head = SegmentationHead.build(CONFIG, CONTRACT, TOWER)
    head.thresholds = (0.5, 0.2)
    values = np.array([[0.6, 0.55, 0.4, 0.1], [0.1, 0.3, 0.19, 0.2]])[:, None, None, :]
    assert head.labels(values).ravel().tolist() == [1, 2, 0, 2]


def test_label_map_lets_later_classes_stand() -> None:
    shape = (2, 3, 4)
    first, second = np.zeros(shape, bool), np.zeros(shape, bool)
    first[0], second[0, 1] = True, True
    found: NDArray[np.uint8] = label_map({"a@k": first, "b@k": second, "a@other": ~first}, "k", ("a", "b", "c"), shape)
    assert found[0, 0].tolist() == [1] * 4
    assert found[0, 1].tolist() == [2] * 4
    assert not found[1].any()


def test_refusals(trained: SegmentationHead, tmp_path: Path) -> None:
    small = Volume(np.zeros((4, 4, 4), np.int16), Geometry.centered((0, 0, 0), (4, 4, 4), (2.0, 2.0, 2.0)))
    with pytest.raises(ConfigError, match="knows kidney_left, kidney_right, not chest"):
        trained.segment(small, "chest", (0, 0, 0))
    with pytest.raises(ConfigError, match="covers"):
        trained.segment(small, "kidney_left", (0, 0, 0))
    with pytest.raises(ConfigError, match=r"no segmentation\.json"):
        SegmentationHead.load(tmp_path)
    trained.save(tmp_path)
    told = json.loads((tmp_path / "segmentation.json").read_text())
    (tmp_path / "segmentation.json").write_text(json.dumps({**told, "schema": "other/1"}))
    with pytest.raises(ConfigError, match="found other/1"):
        SegmentationHead.load(tmp_path)
    (tmp_path / "segmentation.json").write_text(json.dumps({**told, "config": {**told["config"], "classes": ["one"]}}))
    with pytest.raises(ConfigError, match="do not fit one another"):
        SegmentationHead.load(tmp_path)
    empty = crops(3)
    empty.labels[:] = 0
    with pytest.raises(ConfigError, match="none of the 3 training crops"):
        train_segmentation(trained.net, empty, CONTRACT, SegmentTraining(steps=1))
    with pytest.raises(ConfigError, match="no region_resnet of these shapes"):
        SegmentationHead.build(CONFIG, CONTRACT, TOWER, torch.nn.Linear(2, 2))


def test_plain_transformers_are_decoded_from_tokens() -> None:
    config = ImageTowerConfig(name="vit", options={"patch": 8, "width": 24, "depth": 1, "heads": 2}, grid_dhw=(16, 16, 24))
    assert tapped(image_encoder(config)) == ()
