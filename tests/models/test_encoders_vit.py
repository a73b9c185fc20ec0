"""The vision transformer: places, dropped tokens, and the same numbers as torch's and MONAI's own layers give."""

from typing import Any

import pytest
import torch
from monai.networks.nets import ViT
from torch import Tensor

from medvl.errors import ConfigError
from medvl.models.encoders.registry import build_encoder
from medvl.models.encoders.transformer import Block, patchify, sincos_positions
from medvl.models.encoders.vit import VisionTransformer, VitOptions
from medvl.models.weights import KeyMap, load_weights

GRID = (8, 12, 20)
MONAI = KeyMap(
    (
        (r"patch_embedding\.patch_embeddings\.(weight|bias)", r"patch_\1"),
        (r"patch_embedding\.position_embeddings", "position"),
        (r"blocks\.(\d+)\.mlp\.linear1\.(.+)", r"blocks.\1.up.\2"),
        (r"blocks\.(\d+)\.mlp\.linear2\.(.+)", r"blocks.\1.down.\2"),
        (r"blocks\.(\d+)\.attn\.qkv\.(.+)", r"blocks.\1.qkv.\2"),
        (r"blocks\.(\d+)\.attn\.out_proj\.(.+)", r"blocks.\1.out.\2"),
    ),
    (r"blocks\.\d+\.norm_cross_attn\..+",),
    lambda name, tensor: tensor[0] if name == "position" else tensor,
)


def vit(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(2, GRID, VitOptions(**{"patch": 4, "width": 24, "depth": 2, "heads": 3} | options)).eval()


def pixels(n: int = 2) -> Tensor:
    return torch.rand(n, 2, *GRID, generator=torch.Generator().manual_seed(5))


def test_monai_weights_give_monai_tokens() -> None:
    torch.manual_seed(1)
    theirs = ViT(2, GRID, 4, hidden_size=24, mlp_dim=96, num_layers=2, num_heads=3).eval()
    ours = vit(qkv_bias=False)
    load_weights(ours, theirs.state_dict(), key_map=MONAI)
    torch.testing.assert_close(ours(pixels()).tokens, theirs(pixels())[0], rtol=1e-5, atol=1e-5)


def test_a_block_is_torchs_encoder_layer() -> None:
    torch.manual_seed(2)
    theirs = torch.nn.TransformerEncoderLayer(24, 3, 48, 0.0, "gelu", batch_first=True, norm_first=True)
    ours = Block(24, 3, 2.0)
    names = {"self_attn.in_proj_": "qkv.", "self_attn.out_proj.": "out.", "linear1.": "up.", "linear2.": "down."}
    state = {next((o + k[len(t) :] for t, o in names.items() if k.startswith(t)), k): v for k, v in theirs.state_dict().items()}
    load_weights(ours, state)
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_quick_gelu_is_clips() -> None:
    block = Block(6, 1, 1.0, quick_gelu=True)
    with torch.no_grad():
        block.out.weight.zero_()
        for layer in (block.up, block.down):
            layer.weight.copy_(torch.eye(6))
            layer.bias.zero_()
        block.out.bias.zero_()
    x = torch.randn(1, 3, 6)
    hidden = torch.nn.functional.layer_norm(x, (6,))
    torch.testing.assert_close(block(x), x + hidden / (1 + torch.exp(-1.702 * hidden)))


@pytest.mark.parametrize("n_tokens", [40, 600])
def test_attention_in_bfloat16_is_attention(n_tokens: int) -> None:
    """Both ways of computing it, on either side of the length where they change over."""
    torch.manual_seed(3)
    block = Block(24, 3, 1.0).eval()
    x = torch.randn(2, n_tokens, 24)
    with torch.autocast("cpu", torch.bfloat16):
        low = block(x)
    torch.testing.assert_close(low.float(), block(x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("width", [24, 32])
def test_every_token_carries_its_own_place(width: int) -> None:
    """Read D, H and W back from the table, the grid being no cube."""
    grid = (3, 4, 5)
    table = sincos_positions(grid, width)
    n = width // 6
    found = torch.stack([torch.atan2(table[:, 2 * n * axis], table[:, 2 * n * axis + n]) for axis in range(3)], 1).remainder(
        2 * torch.pi
    )
    expected = torch.cartesian_prod(*(torch.arange(n) for n in grid)).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_scrambled_positions_are_the_releases() -> None:
    """On the release's grid 0.7 % of the tokens keep their own place."""
    right, wrong = sincos_positions((16, 18, 18), 48), sincos_positions((16, 18, 18), 48, scrambled=True)
    own = (right == wrong).all(1).float().mean()
    assert 0.006 < float(own) < 0.008
    torch.testing.assert_close(right.sort(0).values, wrong.sort(0).values)


def test_patches_come_in_the_order_of_a_convolution() -> None:
    weight = torch.randn(5, 2, 4, 3, 5)
    expected = torch.nn.functional.conv3d(pixels(), weight, stride=(4, 3, 5)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patchify(pixels(), (4, 3, 5)) @ weight.flatten(1).T, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"class_token": True, "norm_pre": True}, {"positions": "sincos"}, {"positions": "none"}])
def test_all_tokens_asked_for_in_any_order_are_all_tokens(options: dict[str, Any]) -> None:
    encoder = vit(**options)
    keep = torch.stack([torch.randperm(30, generator=torch.Generator().manual_seed(n)) for n in range(2)])
    everything, some = encoder(pixels()), encoder(pixels(), keep)
    expected = everything.tokens.gather(1, keep[..., None].expand(-1, -1, 24))
    torch.testing.assert_close(some.tokens, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(some.pooled, everything.pooled, rtol=1e-5, atol=1e-5)


def test_dropped_tokens_never_enter() -> None:
    encoder, keep = vit(class_token=True, pool="class"), torch.tensor([[0, 7, 11], [2, 3, 29]])
    seen = torch.zeros(2, 30, dtype=torch.bool).scatter(1, keep, True)
    voxels = seen.reshape(2, 1, 2, 3, 5).repeat_interleave(4, 2).repeat_interleave(4, 3).repeat_interleave(4, 4)
    noisy = torch.where(voxels, pixels(), torch.full_like(pixels(), torch.nan))
    clean, found = encoder(pixels(), keep), encoder(noisy, keep)
    assert torch.equal(clean.tokens, found.tokens)
    assert torch.equal(clean.pooled, found.pooled)
    assert found.tokens.shape == (2, 3, 24)


def test_checkpointing_changes_no_gradient() -> None:
    grads = []
    for again in (False, True):
        encoder = vit(checkpoint=again).train()
        encoder(pixels()).pooled.square().sum().backward()
        grads.append(encoder.patch_weight.grad)
    torch.testing.assert_close(*grads)


def test_dropout_acts_in_training_only() -> None:
    encoder = vit(dropout=0.5)
    assert torch.equal(encoder(pixels()).pooled, encoder(pixels()).pooled)
    encoder.train()
    assert not torch.equal(encoder(pixels()).pooled, encoder(pixels()).pooled)


def test_pixels_on_another_grid_are_refused() -> None:
    with pytest.raises(ConfigError, match="built for"):
        vit()(torch.rand(1, 2, 8, 12, 16))
    with pytest.raises(ConfigError, match="does not divide the grid"):
        build_encoder("vit", in_channels=1, grid_dhw=(8, 12, 18), options={"patch": 4})
