"""Encoders by name: what they take, what they refuse, and residual networks against one written out by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from medvl.errors import ConfigError
from medvl.models.encoders.registry import ENCODERS, build_encoder

SMALL: dict[str, dict[str, Any]] = {
    "resnet10": {"widths": [4, 8, 8, 12], "stem_kernel": 3},
    "resnet18": {"widths": [4, 8, 8, 12], "shortcut": "A"},
    "resnet34": {"widths": [4, 4, 4, 4], "stage": 2},
    "resnet50": {"widths": [2, 2, 4, 4], "stage": 3},
    "densenet121": {"init_features": 8, "growth_rate": 4},
    "segresnet": {"filters": 8},
    "swin_unetr": {"feature_size": 12, "heads": [3, 3, 3, 3], "window": 3, "stage": 2},
    "vit": {"patch": 16, "width": 24, "depth": 1, "heads": 2},
}
GRID = (32, 48, 64)
STRIDES = {
    "resnet10": 32,
    "resnet18": 32,
    "resnet34": 8,
    "resnet50": 16,
    "densenet121": 32,
    "segresnet": 8,
    "swin_unetr": 8,
    "vit": 16,
}


@pytest.mark.parametrize("name", SMALL)
def test_tokens_lie_on_the_grid_and_every_weight_learns(name: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, in_channels=2, grid_dhw=GRID, options=SMALL[name]).train()
    found = encoder(torch.rand(2, 2, *GRID))
    rounded = math.floor if name == "densenet121" else math.ceil
    assert found.grid == tuple(rounded(n / STRIDES[name]) for n in GRID)
    assert found.tokens.shape == (2, math.prod(found.grid), encoder.token_dim)
    assert found.pooled.shape == (2, encoder.pooled_dim)
    (found.pooled.square().sum() + found.tokens.square().sum()).backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet10", {"widths": [8, 8, 8, 8], "stage": 2, "max_pool": False, "stem_kernel": 3}),
        ("swin_unetr", {"feature_size": 12, "heads": [3, 3, 3, 3], "window": 2, "depths": [1, 1, 1, 1], "stage": 1}),
        ("vit", {"patch": 8, "width": 24, "depth": 0, "heads": 2}),
    ],
)
def test_a_bright_spot_shows_in_the_token_of_its_place(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    encoder = build_encoder(name, in_channels=1, grid_dhw=GRID, options=options).eval()
    lit = torch.zeros(1, 1, *GRID)
    lit[..., 4:12, 32:40, 24:32] = 1
    with torch.no_grad():
        moved = (encoder(lit).tokens - encoder(torch.zeros_like(lit)).tokens)[0].norm(dim=1)
    grid = encoder(lit).grid
    brightest = [int(n) for n in torch.unravel_index(moved.argmax(), grid)]
    cell = [n // g for n, g in zip(GRID, grid, strict=True)]
    assert all(abs((at + 0.5) * size - middle) <= size for at, size, middle in zip(brightest, cell, (8, 36, 28), strict=True))


def test_every_encoder_is_tried_here() -> None:
    assert set(SMALL) <= set(ENCODERS)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet8", {}, "did you mean resnet"),
        ("transformer_xl", {}, "known: densenet121"),
        ("vit", {"wdith": 3}, "did you mean width"),
        ("resnet18", {"norm": "layer"}, "norm"),
        ("resnet18", {"detach_shortcut": True}, "needs shortcut A"),
        ("resnet18", {"stage": 5}, "stage"),
        ("vit", {"width": 100, "heads": 3}, "does not divide by 3 heads"),
        ("vit", {"pool": "class"}, "needs class_token"),
        ("vit", {"patch": 7}, "does not divide the grid"),
        ("segresnet", {"filters": 12}, "filters 12"),
        ("swin_unetr", {"feature_size": 10}, "do not divide"),
    ],
)
def test_wrong_names_and_options_are_told_apart(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_encoder(name, in_channels=1, grid_dhw=(32, 32, 32), options=options)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "segresnet", "swin_unetr"])
def test_a_grid_that_collapses_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="4x64x64 collapses"):
        build_encoder(name, in_channels=1, grid_dhw=(4, 64, 64), options={})


@pytest.mark.parametrize(("norm", "kind"), [("instance", nn.InstanceNorm3d), ("group", nn.GroupNorm)])
def test_the_norm_is_the_same_everywhere(norm: str, kind: type[nn.Module]) -> None:
    """MONAI's own argument stops at the stem."""
    encoder = build_encoder("resnet50", in_channels=1, grid_dhw=GRID, options={"widths": [2, 4, 4, 4], "norm": norm, "stage": 2})
    norms = [m for m in encoder.modules() if isinstance(m, (nn.BatchNorm3d, nn.InstanceNorm3d, nn.GroupNorm))]
    assert len(norms) == 1 + 3 * 7 + 2
    assert all(isinstance(m, kind) for m in norms)
    encoder(torch.rand(1, 1, *GRID)).pooled.sum().backward()


def by_hand(state: dict[str, Tensor], pixels: Tensor, *, detach: bool, stages: int = 4) -> Tensor:
    """ResNet-18 in eval mode with shortcuts A, from the published description alone."""

    def norm(x: Tensor, name: str) -> Tensor:
        scale = state[f"{name}.weight"] / (state[f"{name}.running_var"] + 1e-5).sqrt()
        shift = state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale
        return x * scale[:, None, None, None] + shift[:, None, None, None]

    x = functional.conv3d(pixels, state["conv1.weight"], stride=2, padding=3)
    x = functional.max_pool3d(norm(x, "bn1").relu(), 3, 2, 1)
    for stage in range(1, stages + 1):
        for block in (0, 1):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = functional.conv3d(x, state[f"{at}.conv1.weight"], stride=stride, padding=1)
            y = functional.conv3d(norm(y, f"{at}.bn1").relu(), state[f"{at}.conv2.weight"], padding=1)
            if stride == 2:
                x = functional.avg_pool3d(x, 1, 2)
                x = torch.cat([x.detach() if detach else x, x.new_zeros(len(x), y.shape[1] - x.shape[1], *x.shape[2:])], 1)
            x = (norm(y, f"{at}.bn2") + x).relu()
    return x


@pytest.mark.parametrize("detach", [False, True])
def test_resnet18_with_shortcuts_a_is_the_published_one(detach: bool) -> None:
    torch.manual_seed(2)
    options = {"widths": [4, 6, 8, 10], "shortcut": "A", "detach_shortcut": detach}
    encoder = build_encoder("resnet18", in_channels=1, grid_dhw=(32, 64, 96), options=options).eval()
    pixels = torch.rand(2, 1, 32, 64, 96)
    state = {
        name: tensor.detach().clone().requires_grad_(tensor.is_floating_point()) for name, tensor in encoder.state_dict().items()
    }
    expected = by_hand(state, pixels, detach=detach)
    found = encoder(pixels)
    torch.testing.assert_close(found.tokens, expected.flatten(2).transpose(1, 2))
    torch.testing.assert_close(found.pooled, expected.mean((2, 3, 4)))
    found.pooled.square().sum().backward()
    expected.mean((2, 3, 4)).square().sum().backward()
    for name, weight in encoder.named_parameters():
        torch.testing.assert_close(weight.grad, state[name].grad, rtol=1e-4, atol=1e-6)


def test_detached_shortcuts_change_the_gradient_and_nothing_else() -> None:
    """The release's quirk: in its own shape the gradient of the first convolution shrinks by more than half."""
    pixels, norms, outputs = torch.rand(2, 1, 32, 64, 64, generator=torch.Generator().manual_seed(3)), [], []
    for detach in (False, True):
        torch.manual_seed(3)
        options = {"widths": [16, 32, 64, 128], "shortcut": "A", "detach_shortcut": detach}
        encoder = build_encoder("resnet18", in_channels=1, grid_dhw=(32, 64, 64), options=options).train()
        pooled = encoder(pixels).pooled
        (pooled * torch.randn(pooled.shape, generator=torch.Generator().manual_seed(4))).sum().backward()
        outputs.append(pooled.detach())
        norms.append(float(encoder.get_parameter("conv1.weight").grad.norm()))
    assert torch.equal(*outputs)
    assert norms[1] < 0.6 * norms[0]


def poison() -> None:
    """Leave freed memory of the sizes of weights and maps full of NaN, so that what a kernel does not write shows."""
    sizes = (8, 64, 512, 1728, 6912, 27648)
    held = [torch.full((n,), math.nan, dtype=dtype) for n in sizes for dtype in (torch.bfloat16, torch.float32) for _ in range(4)]
    del held


@pytest.mark.parametrize("grid", [(16, 16, 16), (8, 32, 16)])
def test_small_maps_get_their_whole_gradient_in_bfloat16(grid: tuple[int, int, int]) -> None:
    """On a CPU that computes in bfloat16; elsewhere this cannot fail."""
    torch.manual_seed(5)
    options = {"widths": [16, 16, 32, 32], "stem_kernel": 3, "max_pool": False, "stage": 3}
    encoder = build_encoder("resnet10", in_channels=1, grid_dhw=grid, options=options).train()
    pixels = torch.rand(4, 1, *grid)
    for _ in range(8):
        encoder.zero_grad()
        poison()
        with torch.autocast("cpu", torch.bfloat16):
            found = encoder(pixels)
        poison()
        found.pooled.float().square().sum().backward()
        assert all(bool(p.grad.isfinite().all()) for p in encoder.parameters() if p.grad is not None)


def test_renalclip_size() -> None:
    with torch.device("meta"):
        encoder = build_encoder("resnet18", in_channels=1, grid_dhw=(32, 128, 128), options={"shortcut": "A"})
    assert sum(p.numel() for p in encoder.parameters()) == 32_986_176
