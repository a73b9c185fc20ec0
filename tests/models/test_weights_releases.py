"""Weights of three releases, by their names and shapes, against plain functions of the published description."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medvl.errors import ConfigError
from medvl.models.encoders.registry import build_encoder
from medvl.models.releases import cardiac_clip, medslip, renalclip
from medvl.models.streams import ConceptStreams, StreamsConfig
from medvl.models.weights import load_weights

State = dict[str, Tensor]


def norm_state(name: str, width: int) -> State:
    """A batch norm that has seen something."""
    return {
        f"{name}.weight": torch.rand(width) + 0.5,
        f"{name}.bias": torch.randn(width) * 0.1,
        f"{name}.running_mean": torch.randn(width) * 0.1,
        f"{name}.running_var": torch.rand(width) + 0.5,
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def normed(x: Tensor, state: State, name: str) -> Tensor:
    return functional.batch_norm(
        x, state[f"{name}.running_mean"], state[f"{name}.running_var"], state[f"{name}.weight"], state[f"{name}.bias"]
    )


def kernel(*shape: int) -> Tensor:
    return torch.randn(shape) * (2 / torch.tensor(shape[1:]).prod()) ** 0.5


def renalclip_state(widths: tuple[int, ...], embed: int, head: str = "image_encoder_q_student.") -> State:
    state = {f"{head}conv1.weight": kernel(widths[0], 1, 7, 7, 7)} | norm_state(f"{head}bn1", widths[0])
    before = widths[0]
    for stage, width in enumerate(widths, 1):
        for block in (0, 1):
            at = f"{head}layer{stage}.{block}"
            state[f"{at}.conv1.weight"] = kernel(width, before, 3, 3, 3)
            state[f"{at}.conv2.weight"] = kernel(width, width, 3, 3, 3)
            state |= norm_state(f"{at}.bn1", width) | norm_state(f"{at}.bn2", width)
            before = width
    state |= {
        f"{head}global_embedding.head.weight": torch.randn(embed, before),
        f"{head}global_embedding.head.bias": torch.randn(embed),
    }
    return state | {"logit_scale": torch.tensor(2.66)}


def renalclip_by_hand(state: State, head: str, pixels: Tensor) -> Tensor:
    x = functional.conv3d(pixels, state[f"{head}conv1.weight"], stride=2, padding=3)
    x = functional.max_pool3d(normed(x, state, f"{head}bn1").relu(), 3, 2, 1)
    for stage in range(1, 5):
        for block in (0, 1):
            at, stride = f"{head}layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = normed(functional.conv3d(x, state[f"{at}.conv1.weight"], stride=stride, padding=1), state, f"{at}.bn1").relu()
            y = normed(functional.conv3d(y, state[f"{at}.conv2.weight"], padding=1), state, f"{at}.bn2")
            short = functional.avg_pool3d(x, 1, stride)
            x = (y + torch.cat([short, torch.zeros(len(x), y.shape[1] - x.shape[1], *y.shape[2:])], 1)).relu()
    return functional.linear(
        x.mean((2, 3, 4)), state[f"{head}global_embedding.head.weight"], state[f"{head}global_embedding.head.bias"]
    )


@pytest.mark.parametrize("prefix", ["", "module."])
def test_renalclip(prefix: str) -> None:
    torch.manual_seed(0)
    widths, head = (4, 6, 8, 10), f"{prefix}image_encoder_q_student."
    state = renalclip_state(widths, 20, head)
    encoder = build_encoder(
        renalclip.NAME, in_channels=1, grid_dhw=(32, 64, 96), options={**renalclip.OPTIONS, "widths": widths}
    ).eval()
    projection = torch.nn.Linear(10, 20)
    load_weights(encoder, state, key_map=renalclip.IMAGE)
    load_weights(projection, state, key_map=renalclip.PROJECTION)
    pixels = torch.rand(2, 1, 32, 64, 96)
    torch.testing.assert_close(projection(encoder(pixels).pooled), renalclip_by_hand(state, head, pixels), rtol=1e-4, atol=1e-5)


def test_renalclip_in_full_size() -> None:
    with torch.device("meta"):
        state = renalclip_state((64, 128, 256, 512), renalclip.EMBED_DIM)
        grid = renalclip.GRID_DHW
        encoder = build_encoder(renalclip.NAME, in_channels=renalclip.IN_CHANNELS, grid_dhw=grid, options=renalclip.OPTIONS)
        load_weights(torch.nn.Linear(encoder.pooled_dim, renalclip.EMBED_DIM), state, key_map=renalclip.PROJECTION)
    assert len(load_weights(encoder, state, key_map=renalclip.IMAGE).matched) == 102
    with pytest.raises(ConfigError, match=r"unexpected \(image_encoder_q_student.fc.weight\)"):
        load_weights(encoder, {**state, "image_encoder_q_student.fc.weight": state["logit_scale"]}, key_map=renalclip.IMAGE)


def cardiac_state(width: int, depth: int, patch: int, n_tokens: int) -> State:
    at = "vision_encoder.visual."
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weight": (width, 1, patch, patch, patch),
        "class_embedding": (width,),
        "positional_embedding": (n_tokens + 1, width),
    }
    for name in ("ln_pre", "ln_post", *(f"transformer.resblocks.{n}.ln_{i}" for n in range(depth) for i in (1, 2))):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for n in range(depth):
        block = f"transformer.resblocks.{n}."
        shapes |= {f"{block}attn.in_proj_weight": (3 * width, width), f"{block}attn.in_proj_bias": (3 * width,)}
        for layer, out, of in (("attn.out_proj", 1, 1), ("mlp.c_fc", 4, 1), ("mlp.c_proj", 1, 4)):
            shapes |= {f"{block}{layer}.weight": (out * width, of * width), f"{block}{layer}.bias": (out * width,)}
    state = {at + name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}
    others = (
        "vision_encoder.token_embedding.weight",
        "vision_encoder.ln_final.bias",
        "language_encoder.embeddings.x",
        "mim_head.mask",
    )
    state |= {name: torch.zeros(2) for name in others}
    return state | {
        "multi_modal_vision_proj.weight": torch.randn(width, width),
        "multi_modal_vision_proj.bias": torch.randn(width),
    }


def cardiac_by_hand(state: State, pixels: Tensor, heads: int, depth: int) -> Tensor:
    """The class token after the last norm, projected; attention written out head by head."""
    own = {name.removeprefix("vision_encoder.visual."): tensor for name, tensor in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * own[f"{name}.weight"] + own[f"{name}.bias"]

    patch, width = own["conv1.weight"].shape[-1], own["conv1.weight"].shape[0]
    x = functional.conv3d(pixels, own["conv1.weight"], stride=patch).flatten(2).transpose(1, 2)
    x = torch.cat([own["class_embedding"].expand(len(x), 1, width), x], 1) + own["positional_embedding"]
    x = norm(x, "ln_pre")
    for n in range(depth):
        at = f"transformer.resblocks.{n}."
        y = norm(x, f"{at}ln_1") @ own[f"{at}attn.in_proj_weight"].T + own[f"{at}attn.in_proj_bias"]
        mixed = []
        for head in range(heads):
            q, k, v = (
                y[..., part * width : (part + 1) * width][..., head * width // heads : (head + 1) * width // heads]
                for part in range(3)
            )
            mixed.append((q @ k.transpose(1, 2) / (width / heads) ** 0.5).softmax(-1) @ v)
        x = x + torch.cat(mixed, -1) @ own[f"{at}attn.out_proj.weight"].T + own[f"{at}attn.out_proj.bias"]
        y = norm(x, f"{at}ln_2") @ own[f"{at}mlp.c_fc.weight"].T + own[f"{at}mlp.c_fc.bias"]
        x = x + (y / (1 + torch.exp(-1.702 * y))) @ own[f"{at}mlp.c_proj.weight"].T + own[f"{at}mlp.c_proj.bias"]
    return norm(x[:, 0], "ln_post") @ own["multi_modal_vision_proj.weight"].T + own["multi_modal_vision_proj.bias"]


def test_cardiac_clip() -> None:
    torch.manual_seed(1)
    state = cardiac_state(24, 2, 4, 2 * 3 * 4)
    options = {**cardiac_clip.OPTIONS, "patch": 4, "width": 24, "depth": 2, "heads": 3}
    encoder = build_encoder(cardiac_clip.NAME, in_channels=1, grid_dhw=(8, 12, 16), options=options)
    projection = torch.nn.Linear(24, 24)
    load_weights(encoder, state, key_map=cardiac_clip.IMAGE)
    load_weights(projection, state, key_map=cardiac_clip.PROJECTION)
    pixels = torch.rand(2, 1, 8, 12, 16)
    found = projection(encoder(pixels).pooled)
    torch.testing.assert_close(found, cardiac_by_hand(state, pixels, 3, 2), rtol=1e-4, atol=1e-4)


def test_cardiac_clip_in_full_size() -> None:
    with torch.device("meta"):
        state = cardiac_state(768, 12, 8, 5184)
        grid = cardiac_clip.GRID_DHW
        encoder = build_encoder(cardiac_clip.NAME, in_channels=1, grid_dhw=grid, options=cardiac_clip.OPTIONS)
    assert len(load_weights(encoder, state, key_map=cardiac_clip.IMAGE).matched) == 3 + 4 + 12 * 12
    assert 89.3e6 < sum(p.numel() for p in encoder.parameters()) < 89.5e6


def medslip_trunk(base: int, in_channels: int = 3) -> State:
    at = "res_features."
    state = {f"{at}0.weight": kernel(base, in_channels, 7, 7)} | norm_state(f"{at}1", base)
    before = base
    for child, n, width in ((4, 3, base), (5, 4, 2 * base), (6, 6, 4 * base)):
        for block in range(n):
            to = f"{at}{child}.{block}"
            state[f"{to}.conv1.weight"] = kernel(width, before, 1, 1)
            state[f"{to}.conv2.weight"] = kernel(width, width, 3, 3)
            state[f"{to}.conv3.weight"] = kernel(4 * width, width, 1, 1)
            state |= norm_state(f"{to}.bn1", width) | norm_state(f"{to}.bn2", width) | norm_state(f"{to}.bn3", 4 * width)
            if block == 0:
                state[f"{to}.downsample.0.weight"] = kernel(4 * width, before, 1, 1)
                state |= norm_state(f"{to}.downsample.1", 4 * width)
            before = 4 * width
    return state


def medslip_by_hand(state: State, image: Tensor) -> Tensor:
    """Two-dimensional ResNet-50 up to its third stage, strides in the middle convolution."""
    x = functional.conv2d(image, state["res_features.0.weight"], stride=2, padding=3)
    x = functional.max_pool2d(normed(x, state, "res_features.1").relu(), 3, 2, 1)
    for child, n in ((4, 3), (5, 4), (6, 6)):
        for block in range(n):
            at, stride = f"res_features.{child}.{block}", 2 if child > 4 and block == 0 else 1
            y = normed(functional.conv2d(x, state[f"{at}.conv1.weight"]), state, f"{at}.bn1").relu()
            y = normed(functional.conv2d(y, state[f"{at}.conv2.weight"], stride=stride, padding=1), state, f"{at}.bn2").relu()
            y = normed(functional.conv2d(y, state[f"{at}.conv3.weight"]), state, f"{at}.bn3")
            if block == 0:
                x = normed(functional.conv2d(x, state[f"{at}.downsample.0.weight"], stride=stride), state, f"{at}.downsample.1")
            x = (x + y).relu()
    return x


@pytest.mark.parametrize("in_channels", [1, 3])
def test_medslip_trunk_on_one_slice(in_channels: int) -> None:
    torch.manual_seed(2)
    state = medslip_trunk(4)
    options = {**medslip.OPTIONS, "widths": [4, 8, 16, 32]}
    encoder = build_encoder(medslip.NAME, in_channels=in_channels, grid_dhw=(16, 64, 96), options=options).eval()
    load_weights(encoder, state, key_map=medslip.image(in_channels))
    image = torch.rand(2, in_channels, 64, 96)
    expected = medslip_by_hand(state, image.expand(-1, 3, -1, -1)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder(image[:, :, None]).tokens, expected, rtol=1e-4, atol=1e-4)


def test_medslip_trunk_takes_one_or_three_windows() -> None:
    with pytest.raises(ConfigError, match="not 2"):
        medslip.image(2)


def medslip_streams(width: int, hidden: int, forward: int, concept: int) -> State:
    shapes: dict[str, tuple[int, int]] = {"mask_generator": (width, width), "pathology_embedding_layer": (hidden, concept)}
    norms = []
    for name in ("pathology", "anatomy"):
        shapes |= {f"res_l1_{name}": (width, width), f"res_l2_{name}": (hidden, width), f"cl_fc_{name}": (concept, hidden)}
        shapes[f"classifier_{name}"] = (2, hidden)
        norms.append(f"decoder_{name}.norm")
        for n in range(2):
            at = f"decoder_{name}.layers.{n}."
            shapes |= {f"{at}linear1": (forward, hidden), f"{at}linear2": (hidden, forward)}
            shapes |= {f"{at}{kind}.out_proj": (hidden, hidden) for kind in ("self_attn", "multihead_attn")}
            norms += [f"{at}norm{i}" for i in (1, 2, 3)]
    state = {f"{name}.weight": torch.randn(shape) * shape[1] ** -0.5 for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.randn(shape[0]) * 0.1 for name, shape in shapes.items()}
    for name in norms:
        state |= {f"{name}.weight": torch.rand(hidden) + 0.5, f"{name}.bias": torch.randn(hidden) * 0.1}
    for name in [key.removesuffix("out_proj.bias") for key in state if key.endswith("out_proj.bias")]:
        state |= {
            f"{name}in_proj_weight": torch.randn(3 * hidden, hidden) * hidden**-0.5,
            f"{name}in_proj_bias": torch.randn(3 * hidden),
        }
    return state


def asked(state: State, name: str, x: Tensor, memory: Tensor, heads: int) -> Tensor:
    """One decoder of the release in eval mode, by torch's own attention."""

    def norm(x: Tensor, at: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], state[f"{at}.weight"], state[f"{at}.bias"])

    def attend(query: Tensor, memory: Tensor, at: str) -> Tensor:
        layer = torch.nn.MultiheadAttention(query.shape[-1], heads, batch_first=True).eval()
        layer.load_state_dict({key.removeprefix(f"{at}."): value for key, value in state.items() if key.startswith(f"{at}.")})
        return layer(query, memory, memory)[0]

    for n in range(2):
        at = f"decoder_{name}.layers.{n}"
        y = norm(x, f"{at}.norm1")
        x = x + attend(y, y, f"{at}.self_attn")
        x = x + attend(norm(x, f"{at}.norm2"), memory, f"{at}.multihead_attn")
        y = functional.linear(norm(x, f"{at}.norm3"), state[f"{at}.linear1.weight"], state[f"{at}.linear1.bias"]).relu()
        x = x + functional.linear(y, state[f"{at}.linear2.weight"], state[f"{at}.linear2.bias"])
    return norm(x, f"decoder_{name}.norm")


def test_medslip_concepts() -> None:
    torch.manual_seed(3)
    state = medslip_streams(16, 12, 20, 8)
    config = StreamsConfig(**medslip.STREAMS, hidden=12, layers=2, heads=3, feedforward=20)
    ours = ConceptStreams(config, 16, 8, 4, 5).eval()
    load_weights(ours, {**state, **medslip_trunk(2)}, key_map=medslip.CONCEPTS)
    tokens, banks = torch.randn(2, 6, 16), {"anatomy": torch.randn(4, 8), "pathology": torch.randn(5, 8)}
    with torch.no_grad():
        found = ours(tokens, (1, 2, 3), banks["anatomy"], banks["pathology"])

        def linear(x: Tensor, name: str) -> Tensor:
            return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

        gate = linear(tokens, "mask_generator")
        for name, share, key in (("pathology", gate, "finding"), ("anatomy", 1 - gate, "anatomy")):
            memory = linear(linear(share * tokens, f"res_l1_{name}").relu(), f"res_l2_{name}")
            states = asked(state, name, linear(banks[name], "pathology_embedding_layer").expand(2, -1, -1), memory, 3)
            torch.testing.assert_close(found[f"{key}_states"], states, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found[f"{key}_logits"], linear(states, f"classifier_{name}"), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found[f"{key}_prototype"], linear(states, f"cl_fc_{name}"), rtol=1e-4, atol=1e-4)


def test_medslip_in_full_size() -> None:
    with torch.device("meta"):
        trunk = medslip_trunk(64)
        encoder = build_encoder(medslip.NAME, in_channels=3, grid_dhw=(64, 224, 224), options=medslip.OPTIONS)
        load_weights(encoder, {**trunk, **medslip_streams(1024, 256, 1024, 768)}, key_map=medslip.image(3))
    assert encoder.token_dim == 1024
