"""Masked pretraining: what is hidden stays hidden, masks belong to samples, and MONAI's autoencoder agrees."""

from typing import Any

import pytest
import torch
from monai.networks.nets import MaskedAutoEncoderViT
from torch import Tensor

from medvl.errors import ConfigError
from medvl.models.encoders.vit import VisionTransformer, VitOptions
from medvl.models.masked import MaskedAutoencoder, MaskedOptions, Split
from medvl.models.weights import KeyMap, load_weights

GRID = (8, 12, 20)


def build(vit: dict[str, Any] | None = None, **options: Any) -> MaskedAutoencoder:
    torch.manual_seed(0)
    shape = VitOptions(**{"patch": 4, "width": 24, "depth": 2, "heads": 2, "class_token": True} | (vit or {}))
    return MaskedAutoencoder(VisionTransformer(2, GRID, shape), MaskedOptions(**{"decoder_depth": 1} | options))


def pixels(n: int = 3) -> Tensor:
    return torch.rand(n, 2, *GRID, generator=torch.Generator().manual_seed(5))


def test_targets_are_the_hidden_patches_normalised() -> None:
    """Voxel by voxel from the volume; unbiased variance, 1e-6 inside the root."""
    model, seeds = build(), torch.tensor([4, 5, 6])
    found, hidden = model(pixels(), seeds), model.split(seeds).hidden
    assert found["reconstruction"].shape == found["target"].shape == (3, 23, 128)
    expected = torch.empty(3, 23, 128)
    for b in range(3):
        for m, token in enumerate(hidden[b].tolist()):
            d, h, w = token // 15, token // 5 % 3, token % 5
            patch = pixels()[b, :, 4 * d : 4 * d + 4, 4 * h : 4 * h + 4, 4 * w : 4 * w + 4].flatten()
            variance = (patch - patch.mean()).square().sum() / 127
            expected[b, m] = (patch - patch.mean()) / (variance + 1e-6).sqrt()
    torch.testing.assert_close(found["target"], expected, rtol=1e-4, atol=1e-4)


def test_raw_targets_and_empty_patches() -> None:
    seeds = torch.tensor([1])
    raw = build(norm_pix=False)(torch.full((1, 2, *GRID), 0.25), seeds)["target"]
    assert torch.equal(raw, torch.full((1, 23, 128), 0.25))
    assert torch.equal(build()(torch.zeros(1, 2, *GRID), seeds)["target"], torch.zeros(1, 23, 128))


def test_hidden_voxels_change_nothing_but_the_target() -> None:
    model, seeds = build().eval(), torch.tensor([1, 2, 3])
    clean, noisy = pixels(), pixels()
    for b, tokens in enumerate(model.split(seeds).hidden.tolist()):
        for token in tokens:
            d, h, w = 4 * (token // 15), 4 * (token // 5 % 3), 4 * (token % 5)
            noisy[b, :, d : d + 4, h : h + 4, w : w + 4] = torch.rand(2, 4, 4, 4)
    a, b = model(clean, seeds), model(noisy, seeds)
    assert torch.equal(a["reconstruction"], b["reconstruction"])
    assert not torch.equal(a["target"], b["target"])


def test_a_samples_mask_is_its_own() -> None:
    model = build().eval()
    together = model(pixels(), torch.tensor([7, 8, 9]))
    alone = model(pixels()[1:2], torch.tensor([8]))
    for name, tensor in alone.items():
        torch.testing.assert_close(tensor, together[name][1:2], rtol=1e-5, atol=1e-6)


def test_masks_are_even_and_differ() -> None:
    model = build()
    split = model.split(torch.arange(4000))
    every = torch.cat([split.seen, split.hidden], 1).sort(1).values
    assert torch.equal(every, torch.arange(30).expand(4000, -1))
    share = torch.bincount(split.seen.flatten(), minlength=30) / 4000
    assert float((share - 7 / 30).abs().max()) < 0.03
    assert len(split.seen.unique(dim=0)) > 3950
    pairs = torch.zeros(30, 30).index_put(
        (split.seen[:, :1].flatten(), split.seen[:, 1].flatten()), torch.ones(4000), accumulate=True
    )
    assert (pairs > 0).sum() > 100


@pytest.mark.parametrize(("ratio", "n_seen"), [(0.75, 7), (0.9, 3), (0.5, 15)])
def test_how_many_are_seen(ratio: float, n_seen: int) -> None:
    assert build(mask_ratio=ratio).n_seen == n_seen


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_ratio": 0.0}, "30 of 30"),
        ({"mask_ratio": 0.99}, "0 of 30"),
        ({"decoder_width": 10, "decoder_heads": 3}, "3 heads"),
    ],
)
def test_masks_and_decoders_that_cannot_work_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(**options)


def test_it_learns_to_rebuild() -> None:
    """Volumes of one slope each: the hidden part follows from the seen part."""
    model = build({"class_token": False, "positions": "sincos", "width": 48}, norm_pix=False, decoder_width=48)
    places = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in GRID), indexing="ij"))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator, left = torch.Generator().manual_seed(0), []
    for step in range(150):
        slopes = torch.randn(16, 3, generator=generator)
        volumes = torch.einsum("bi,idhw->bdhw", slopes, places)[:, None].expand(-1, 2, -1, -1, -1)
        found = model(volumes, torch.arange(16) + 16 * step)
        loss = (found["reconstruction"] - found["target"]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        left.append(float(loss.detach() / found["target"].var()))
    assert sum(left[:10]) / 10 > 0.9
    assert sum(left[-10:]) / 10 < 0.2


class Shown(MaskedAutoEncoderViT):
    """MONAI's autoencoder with the mask given."""

    split: Split

    def _masking(self, x: Tensor, masking_ratio: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.arange(len(x))[:, None]
        mask = torch.ones(x.shape[:2], dtype=torch.int)
        mask[rows, self.split.seen] = 0
        return x[rows, self.split.seen], self.split.seen, mask


def _ours(depths: tuple[int, int]) -> KeyMap:
    """MONAI's names; the last of its blocks is the final norm, its class token has no place, its tables are parameters."""
    block = {"": "vit.blocks", "decoder_": "blocks"}
    layers = {
        r"mlp\.linear1": "up",
        r"mlp\.linear2": "down",
        r"attn\.qkv": "qkv",
        r"attn\.out_proj": "out",
        "norm1": "norm1",
        "norm2": "norm2",
    }
    rules = [
        (rf"{theirs}blocks\.(\d+)\.{layer}\.(.+)", rf"{ours}.\1.{name}.\2")
        for theirs, ours in block.items()
        for layer, name in layers.items()
    ]
    return KeyMap(
        (
            *rules,
            (rf"blocks\.{depths[0]}\.(.+)", r"vit.norm.\1"),
            (rf"decoder_blocks\.{depths[1]}\.(.+)", r"norm.\1"),
            (r"patch_embedding\.patch_embeddings\.(.+)", r"vit.patch_\1"),
            (r"patch_embedding\.position_embeddings", "vit.position"),
            ("cls_token", "vit.class_token"),
            ("mask_tokens", "mask_token"),
            (r"decoder_embed\.(.+)", r"embed.\1"),
            (r"decoder_pred\.(.+)", r"rebuild.\1"),
        ),
        (r"(?:decoder_)?blocks\.\d+\.norm_cross_attn\..+", "decoder_pos_embedding"),
        _flat,
    )


def _flat(name: str, tensor: Tensor) -> Tensor:
    if name == "vit.position":
        return torch.cat([torch.zeros_like(tensor[0, :1]), tensor[0]])
    return tensor.flatten() if name.endswith(("class_token", "mask_token")) else tensor


def test_monai_with_the_same_weights_and_mask_rebuilds_the_same() -> None:
    torch.manual_seed(3)
    theirs = Shown(
        2,
        GRID,
        4,
        24,
        96,
        2,
        2,
        decoder_hidden_size=12,
        decoder_mlp_dim=48,
        decoder_num_layers=1,
        decoder_num_heads=2,
        pos_embed_type="learnable",
        decoder_pos_embed_type="learnable",
    ).eval()
    ours = build({"qkv_bias": False}, decoder_width=12, decoder_heads=2).eval()
    load_weights(ours, theirs.state_dict(), key_map=_ours((2, 1)))
    ours.places.copy_(theirs.decoder_pos_embedding[0])
    seeds = torch.tensor([1, 2, 3])
    theirs.split = ours.split(seeds)
    with torch.no_grad():
        expected, mask = theirs(pixels())
        found = ours(pixels(), seeds)["reconstruction"]
        states = ours.vit.states(pixels(), theirs.split.seen)
        embedded = theirs.patch_embedding(pixels())
        seen, _, _ = theirs._masking(embedded)
        their_states = theirs.blocks(torch.cat([theirs.cls_token.expand(3, -1, -1), seen], 1))
    torch.testing.assert_close(states, their_states, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, expected[mask.bool()].reshape(found.shape), rtol=1e-4, atol=1e-5)
