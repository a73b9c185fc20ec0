"""Two concept streams: the gate by hand, the decoder against PyTorch's own, positions, open vocabulary, maps of one item."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medvl.errors import ConfigError
from medvl.models.streams import ConceptLayer, ConceptStreams, StreamsConfig, grounding_map, sincos_positions

GRID, T, C, A, F, H, LAYERS = (2, 3, 4), 10, 7, 3, 5, 24, 2
L = 24
SMALL: dict[str, Any] = {"hidden": H, "layers": LAYERS, "heads": 4, "feedforward": 20}
KEYS = {f"{stream}_{key}" for stream in ("finding", "anatomy") for key in ("logits", "states", "prototype")}


def _streams(**changes: Any) -> ConceptStreams:
    torch.manual_seed(3)
    return ConceptStreams(StreamsConfig(**(SMALL | changes)), T, C, A, F).eval()


def _inputs(batch: int = 2, findings: int = F) -> tuple[Tensor, tuple[int, int, int], Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, L, T, generator=rng),
        GRID,
        torch.randn(A, C, generator=rng),
        torch.randn(findings, C, generator=torch.Generator().manual_seed(2)),
    )


@pytest.mark.parametrize("batch", [1, 3])
def test_keys_and_shapes_for_any_batch(batch: int) -> None:
    model = _streams()
    plain, shown = model(*_inputs(batch)), model(*_inputs(batch), attention=True)
    assert set(plain) == KEYS
    assert set(shown) == KEYS | {"finding_attention", "anatomy_attention"}
    for stream, n in (("finding", F), ("anatomy", A)):
        assert shown[f"{stream}_logits"].shape == (batch, n, 2)
        assert shown[f"{stream}_states"].shape == (batch, n, H)
        assert shown[f"{stream}_prototype"].shape == (batch, n, C)
        assert shown[f"{stream}_attention"].shape == (batch, LAYERS, n, L)
        assert torch.allclose(shown[f"{stream}_attention"].sum(-1), torch.ones(()), atol=1e-6)
    for key in KEYS:
        assert torch.allclose(plain[key], shown[key], atol=1e-5), key


@pytest.mark.parametrize("gate", ["sigmoid", "linear"])
def test_gate_equals_numpy(gate: str) -> None:
    model, tokens = _streams(gate=gate), _inputs()[0]
    assert model.gate is not None
    x, w, b = (t.detach().numpy().astype(float) for t in (tokens, model.gate.weight, model.gate.bias))
    opened = x @ w.T + b
    if gate == "sigmoid":
        opened = 1 / (1 + np.exp(-opened))
    findings, anatomies = (t.detach().numpy() for t in model.shares(tokens))
    np.testing.assert_allclose(findings, opened * x, atol=1e-5)
    np.testing.assert_allclose(anatomies, x - opened * x, atol=1e-5)
    inside = (np.abs(findings) <= np.abs(x) + 1e-6).all()
    assert inside == (gate == "sigmoid")


def test_without_gate_both_streams_get_all() -> None:
    model, tokens = _streams(gate="none"), _inputs()[0]
    assert model.gate is None
    assert not [name for name in model.state_dict() if name.startswith("gate")]
    for share in model.shares(tokens):
        assert torch.equal(share, tokens)


def test_each_stream_reads_its_own_share() -> None:
    """A gate that is shut for findings leaves them nothing but positions; anatomies still see the image."""
    model, inputs = _streams(positions=False), _inputs()
    assert model.gate is not None
    nn.init.zeros_(model.gate.weight)
    nn.init.constant_(model.gate.bias, -50.0)
    other = (inputs[0].flip(0) + 1, *inputs[1:])
    first, second = model(*inputs), model(*other)
    assert torch.allclose(first["finding_states"], second["finding_states"], atol=1e-6)
    assert not torch.allclose(first["anatomy_states"], second["anatomy_states"], atol=1e-3)


def _copied(layer: ConceptLayer, width: int) -> nn.TransformerDecoderLayer:
    """PyTorch's decoder layer with the same weights."""
    torch.manual_seed(8)
    theirs = nn.TransformerDecoderLayer(width, 4, 20, dropout=0.0, batch_first=True, norm_first=True)
    with torch.no_grad():
        for mine, other in ((layer.among, theirs.self_attn), (layer.across, theirs.multihead_attn)):
            parts = (mine.query, mine.key, mine.value)
            assert other.in_proj_weight is not None
            other.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
            other.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
            other.out_proj.load_state_dict(mine.out.state_dict())
        for norm, target in zip(layer.norms, (theirs.norm1, theirs.norm2, theirs.norm3), strict=True):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            target.load_state_dict(norm.state_dict())
        theirs.linear1.load_state_dict(layer.feedforward[0].state_dict())
        theirs.linear2.load_state_dict(layer.feedforward[3].state_dict())
    return theirs


@pytest.mark.parametrize(("maps", "alone"), list(product([False, True], [False, True])))
def test_decoder_layer_equals_pytorch(maps: bool, alone: bool) -> None:
    torch.manual_seed(0)
    layer = ConceptLayer(StreamsConfig(**SMALL, dropout=0.0))
    x, memory = torch.randn(2, F, H, requires_grad=True), torch.randn(2, L, H)
    theirs = _copied(layer, H)
    seen = torch.eye(F, dtype=torch.bool) if alone else None
    expected = theirs(x, memory, tgt_mask=None if seen is None else ~seen)
    found, shown = layer(x, memory, seen, maps=maps)
    assert torch.allclose(found, expected, atol=1e-5)
    slopes = [torch.autograd.grad(out.square().sum(), x)[0] for out in (found, expected)]
    assert torch.allclose(slopes[0], slopes[1], atol=1e-4)
    if maps:
        own = theirs.norm1(x)
        asked = x + theirs.self_attn(own, own, own, attn_mask=None if seen is None else ~seen)[0]
        weights = theirs.multihead_attn(theirs.norm2(asked), memory, memory, average_attn_weights=True)[1]
        assert torch.allclose(shown, weights, atol=1e-6)


def test_dropout_acts_in_training_only() -> None:
    model, inputs = _streams(dropout=0.3), _inputs()
    calm = [model(*inputs)["finding_logits"] for _ in range(2)]
    assert torch.equal(*calm)
    for attention in (False, True):
        model.train()
        noisy = [model(*inputs, attention=attention)["finding_logits"] for _ in range(2)]
        assert not torch.equal(*noisy)
    steady = _streams(dropout=0.0).train()
    assert torch.equal(steady(*inputs)["finding_logits"], steady(*inputs)["finding_logits"])


@pytest.mark.parametrize("positions", [False, True])
def test_order_of_tokens_matters_only_with_positions(positions: bool) -> None:
    model, (tokens, grid, anatomies, findings) = _streams(positions=positions), _inputs()
    order = torch.randperm(L, generator=torch.Generator().manual_seed(4))
    straight = model(tokens, grid, anatomies, findings, attention=True)
    mixed = model(tokens[:, order], grid, anatomies, findings, attention=True)
    same = torch.allclose(straight["finding_states"], mixed["finding_states"], atol=1e-5)
    moved = torch.allclose(straight["anatomy_attention"][..., order], mixed["anatomy_attention"], atol=1e-6)
    assert same == moved == (not positions)


def test_order_of_concepts_is_carried_through() -> None:
    model, (tokens, grid, anatomies, findings) = _streams(), _inputs()
    order = torch.tensor([3, 0, 4, 1, 2])
    straight, mixed = model(tokens, grid, anatomies, findings), model(tokens, grid, anatomies, findings[order])
    assert torch.allclose(straight["finding_logits"][:, order], mixed["finding_logits"], atol=1e-5)
    assert torch.allclose(straight["anatomy_logits"], mixed["anatomy_logits"], atol=1e-6)


def test_positions_tell_every_cell_and_axis_apart() -> None:
    grid, width = (3, 5, 7), 26
    table = sincos_positions(grid, width).numpy()
    assert table.shape == (105, width)
    assert len(np.unique(table.round(4), axis=0)) == 105
    for (d, h, w), row in zip(np.ndindex(grid), table, strict=True):
        expected = [wave(i * 100 ** (-k / 4)) for i in (d, h, w) for wave in (np.sin, np.cos) for k in range(4)]
        np.testing.assert_allclose(row, [*expected, 0, 0], atol=1e-5)


@pytest.mark.parametrize("independent", [False, True])
def test_a_new_finding_is_a_new_row(independent: bool) -> None:
    """Asked together, a new finding moves the others a little; asked independently, not at all."""
    model, inputs = _streams(independent_queries=independent), _inputs(findings=F + 2)
    known, more = model(*inputs[:3], inputs[3][:F]), model(*inputs)
    assert more["finding_logits"].shape == (2, F + 2, 2)
    assert torch.allclose(known["finding_logits"], more["finding_logits"][:, :F], atol=1e-6) == independent
    if independent:
        alone = model(*inputs[:3], inputs[3][F : F + 1], attention=True)
        assert torch.allclose(alone["finding_states"], more["finding_states"][:, F : F + 1], atol=1e-6)


def test_joint_concepts_cannot_be_asked_apart_in_silence() -> None:
    tokens, grid, anatomies, findings = _inputs()
    with pytest.raises(ConfigError, match="finding bank has 2 rows, but 5 were trained together"):
        _streams()(tokens, grid, anatomies, findings[:2])
    with pytest.raises(ConfigError, match=r"grid \(2, 3, 5\) has 30 cells, but there are 24 tokens"):
        _streams()(tokens, (2, 3, 5), anatomies, findings)


def test_config_refuses_what_cannot_be() -> None:
    for wrong in ({"hidden": 30, "heads": 4}, {"gate": "relu"}, {"dropout": 1.0}, {"temperature": 1}):
        with pytest.raises(ValidationError):
            StreamsConfig(**wrong)


def test_query_projection_is_shared_or_one_each() -> None:
    inputs = _inputs()
    for shared in (True, False):
        model = _streams(shared_queries=shared)
        (slope,) = torch.autograd.grad(
            model(*inputs)["finding_states"].square().sum(), model.queries["concept" if shared else "finding"].weight
        )
        assert slope.abs().sum() > 0
        assert len(model.queries) == (1 if shared else 2)


def test_every_parameter_learns() -> None:
    for changes in ({}, {"independent_queries": True}, {"gate": "none", "shared_queries": False}):
        model = _streams(**changes).train()
        found = model(*_inputs())
        sum(found[f"{s}_{k}"].square().sum() for s in ("finding", "anatomy") for k in ("logits", "prototype")).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_initial_weights_of_the_release() -> None:
    model = _streams(initial="normal", hidden=96)
    weights = torch.cat([m.weight.flatten() for m in model.modules() if isinstance(m, nn.Linear)])
    assert float(weights.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert all((m.bias == 0).all() for m in model.modules() if isinstance(m, nn.Linear))


def test_state_survives_a_file(tmp_path: Path) -> None:
    model, inputs = _streams(), _inputs()
    save_file(model.state_dict(), tmp_path / "streams.safetensors")
    torch.manual_seed(99)
    other = ConceptStreams(model.config, T, C, A, F).eval()
    assert not torch.equal(other(*inputs)["finding_logits"], model(*inputs)["finding_logits"])
    other.load_state_dict(load_file(tmp_path / "streams.safetensors"))
    assert torch.equal(other(*inputs)["finding_logits"], model(*inputs)["finding_logits"])


def test_map_of_an_item_does_not_depend_on_its_batch() -> None:
    model, (tokens, *rest) = _streams(), _inputs(4)
    together = model(tokens, *rest, attention=True)["finding_attention"]
    alone = model(tokens[2:3], *rest, attention=True)["finding_attention"]
    maps = [grounding_map(a, GRID) for a in (together[2, :, 1], alone[0, :, 1])]
    assert torch.allclose(*maps, atol=1e-5)
    assert maps[0].shape == GRID
    assert float(maps[0].detach().max()) == 1.0


def test_map_by_hand() -> None:
    attention = np.random.default_rng(0).random((LAYERS, L))
    anatomies = np.random.default_rng(1).random((LAYERS, A, L))
    mean, last = attention.mean(0), attention[-1]
    fused = sum(mean * anatomies[:, a].mean(0) for a in range(A)) / A
    cases = ((mean, {}), (last, {"reduce": "last"}), (fused, {"anatomies": torch.tensor(anatomies)}))
    for expected, options in cases:
        found = grounding_map(torch.tensor(attention), GRID, **options)
        np.testing.assert_allclose(found, (expected / expected.max()).reshape(GRID), atol=1e-6)
    assert (grounding_map(torch.zeros(LAYERS, L), GRID) == 0).all()
