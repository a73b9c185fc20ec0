"""Weights are matched by name and shape, or refused; checkpoints are read as tensors alone."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from medvl.errors import ConfigError
from medvl.models.weights import KeyMap, LoadReport, load_weights, read_state_dict


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_everything_that_fits_is_loaded() -> None:
    torch.manual_seed(0)
    theirs, ours = net(), net()
    report = load_weights(ours, theirs.state_dict())
    assert report == LoadReport(tuple(theirs.state_dict()), (), (), ())
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name])


def test_a_misfit_is_named_and_changes_nothing() -> None:
    ours = net()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    state = net().state_dict()
    state["head.weight"] = state.pop("2.weight")
    state["0.weight"] = torch.zeros(4, 5)
    with pytest.raises(ConfigError) as caught:
        load_weights(ours, state)
    words = str(caught.value)
    assert "1 missing (2.weight)" in words
    assert "1 unexpected (head.weight)" in words
    assert "1 of another shape (0.weight (4, 5) for (4, 3))" in words
    assert all(torch.equal(before[name], tensor) for name, tensor in ours.state_dict().items())


def test_long_lists_are_cut_but_counted() -> None:
    with pytest.raises(ConfigError, match=r"9 missing \(0.weight, 0.bias, 1.weight, ...\); 7 unexpected"):
        load_weights(net(), {f"other.{n}": torch.zeros(1) for n in range(7)})


def test_a_partial_load_says_what_is_left() -> None:
    ours = net()
    report = load_weights(ours, {"0.bias": torch.ones(4), "2.bias": torch.ones(3), "x": torch.ones(1)}, strict=False)
    assert report.matched == ("0.bias",)
    assert report.unexpected == ("x",)
    assert report.wrong_shape == ("2.bias (3,) for (2,)",)
    assert len(report.missing) == 7
    assert torch.equal(ours[0].bias, torch.ones(4))


def test_a_load_of_nothing_is_never_fine() -> None:
    with pytest.raises(ConfigError, match="0 fit"):
        load_weights(net(), {"module.0.bias": torch.ones(4)}, strict=False)


def test_key_maps_rename_cut_drop_and_keep_what_they_do_not_know() -> None:
    mapped = KeyMap((("in_proj", ("q", "k", "v")), (r"l(\d)\.w", r"layers.\1.w")), (r"head\..+",))
    found = mapped({"in_proj": torch.arange(6), "l3.w": torch.ones(2), "head.x": torch.ones(1), "new": torch.zeros(1)})
    assert set(found) == {"q", "k", "v", "layers.3.w", "new"}
    assert found["k"].tolist() == [2, 3]
    with pytest.raises(ConfigError, match="two weights become a"):
        KeyMap((("b|c", "a"),))({"b": torch.ones(1), "c": torch.ones(1)})


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.ckpt", "w.bin"])
@pytest.mark.parametrize("nested", [(), ("state_dict",), ("model",)])
def test_checkpoints_of_every_kind(tmp_path: Path, name: str, nested: tuple[str, ...]) -> None:
    state, path = {"a": torch.arange(3.0)}, tmp_path / name
    if name.endswith("safetensors"):
        save_file(state, path)
    else:
        held: object = state
        for key in nested:
            held = {"epoch": 3, key: held}
        torch.save(held, path)
    found = read_state_dict(path)
    assert list(found) == ["a"]
    assert torch.equal(found["a"], state["a"])


class Anything:
    """Not a tensor."""


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, "config": Anything()}, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="cannot be read as tensors alone"):
        read_state_dict(tmp_path / "w.pt")


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    torch.save({"a": torch.ones(1), "epoch": 3}, tmp_path / "mixed.pt")
    for name in ("garbage.safetensors", "garbage.pt", "weights.npz"):
        (tmp_path / name).write_bytes(b"no weights at all")
    cases = {
        "absent.pt": "no weights at",
        "list.pt": "holds a list",
        "mixed.pt": "epoch is no tensor",
        "garbage.safetensors": "cannot be read",
        "garbage.pt": "cannot be read",
        "weights.npz": "weights end in",
    }
    for name, words in cases.items():
        with pytest.raises(ConfigError, match=words):
            read_state_dict(tmp_path / name)
