"""Checkpoints of three releases, made up under their published names and shapes: what is taken, what is refused, and a start."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from medvl.errors import ConfigError
from medvl.exchange.released import begin_with, import_release
from medvl.models.encoders.registry import build_encoder
from medvl.models.releases import renalclip
from medvl.models.system import System, SystemConfig
from medvl.models.tokenizer import train_tokenizer
from medvl_pipelines import import_release as verb

_SPEC = importlib.util.spec_from_file_location(
    "weights_releases", Path(__file__).parents[1] / "models" / "test_weights_releases.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
published: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(published)


@pytest.fixture(scope="module")
def renal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """As the release nests it: under `model`, with the wrapper's prefix."""
    torch.manual_seed(0)
    state = published.renalclip_state((64, 128, 256, 512), renalclip.EMBED_DIM, "module.image_encoder_q_student.")
    state |= {"module.text_encoder_q_student.layer.weight": torch.zeros(2)}
    path = tmp_path_factory.mktemp("release") / "best.pt"
    torch.save({"model": state}, path)
    return path, state


def new_system(model: dict[str, Any], kinds: tuple[str, ...]) -> System:
    text = {"hidden_size": 8, "layers": 1, "heads": 1, "intermediate_size": 8, "vocab_size": 40}
    shapes = {**model, "image": {**model["image"], "kinds": kinds}, "text": text}
    return System(SystemConfig.model_validate(shapes), train_tokenizer(["a b c"] * 3, 40), ["left"], ["mass"])


def test_renalclip_in_its_published_shape(renal: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    path, state = renal
    report = import_release("renalclip", path, tmp_path / "start")
    assert report.complete
    assert {name: len(found.matched) for name, found in report.parts.items()} == {
        "clip.image.": 102,
        "clip.image_projection.0.": 2,
    }
    assert report.left == ("logit_scale", "module.text_encoder_q_student.layer.weight")
    told = json.loads((tmp_path / "start" / "release.json").read_text(encoding="utf-8"))
    system = new_system(told["model"], ("kidney",))
    assert begin_with(tmp_path / "start", system) == 104
    own = build_encoder(renalclip.NAME, in_channels=1, grid_dhw=renalclip.GRID_DHW, options=renalclip.OPTIONS)
    own.load_state_dict(renalclip.IMAGE({k: v for k, v in state.items() if "head" not in k}))
    pixels = torch.rand(1, 1, 32, 64, 64)
    with torch.no_grad():
        seen = own.eval()(pixels).pooled
        head = "module.image_encoder_q_student.global_embedding.head."
        expected = torch.nn.functional.linear(seen, state[head + "weight"], state[head + "bias"])
        found = system.eval().clip.project(
            system.clip.pooled(pixels, torch.zeros(1, dtype=torch.int64)), torch.zeros(1, dtype=int)
        )
    torch.testing.assert_close(found, expected)


def test_what_is_missing_or_unexplained_is_told_and_nothing_written(
    renal: tuple[Path, dict[str, Tensor]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = dict(renal[1])
    del changed["module.image_encoder_q_student.layer2.0.conv1.weight"]
    changed["module.image_encoder_q_student.conv1.weight"] = torch.zeros(64, 3, 7, 7, 7)
    changed["module.image_encoder_q_student.fc.weight"] = torch.zeros(2)
    torch.save(changed, tmp_path / "odd.pth")
    assert verb.run("renalclip", tmp_path / "odd.pth", tmp_path / "start") == verb.INCOMPLETE
    assert not (tmp_path / "start").exists()
    shown = capsys.readouterr().err
    assert "clip.image. missing: layer2.0.conv1.weight" in shown
    assert "clip.image. unexpected: module.image_encoder_q_student.fc.weight" in shown
    assert "clip.image. another shape: conv1.weight (64, 3, 7, 7, 7) for (64, 1, 7, 7, 7)" in shown
    assert verb.run("renalclip", tmp_path / "odd.pth", tmp_path / "start", as_json=True) == verb.INCOMPLETE
    told = json.loads(capsys.readouterr().out)
    assert told["complete"] is False
    assert told["parts"]["clip.image."]["missing"] == ["layer2.0.conv1.weight"]


def test_medslip_with_both_kinds_of_input(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = {**published.medslip_trunk(64), **published.medslip_streams(1024, 256, 1024, 768)}
    layers = {k.replace("layers.0", f"layers.{n}"): v for k, v in state.items() if "layers.0." in k for n in (2, 3)}
    torch.save({"model": state | layers}, tmp_path / "medslip.pth")
    report = import_release("medslip", tmp_path / "medslip.pth", tmp_path / "rgb")
    assert report.complete, report.parts
    assert report.left == ()
    import_release("medslip", tmp_path / "medslip.pth", tmp_path / "grey", windows=1)
    flat = state["res_features.0.weight"]
    rgb, grey = (load_file(tmp_path / name / "weights.safetensors")["clip.image.conv1.weight"] for name in ("rgb", "grey"))
    assert torch.equal(rgb[:, :, 3], flat)
    assert torch.equal(grey[:, :, 3], flat.sum(1, keepdim=True))
    with pytest.raises(ConfigError, match="1 or 3 windows, not 2"):
        import_release("medslip", tmp_path / "medslip.pth", tmp_path / "two", windows=2)


@pytest.mark.slow
def test_cardiac_clip_in_its_published_shape(tmp_path: Path) -> None:
    torch.save({"state_dict": published.cardiac_state(768, 12, 8, 5184)}, tmp_path / "cardiac.ckpt")
    report = import_release("cardiac-clip", tmp_path / "cardiac.ckpt", tmp_path / "start")
    assert report.complete
    assert {name: len(found.matched) for name, found in report.parts.items()} == {
        "clip.image.": 151,
        "clip.image_projection.0.": 2,
    }
    assert "language_encoder.embeddings.x" in report.left


def test_one_projection_serves_every_kind_and_other_shapes_are_refused(
    renal: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    import_release("renalclip", renal[0], tmp_path / "start")
    told = json.loads((tmp_path / "start" / "release.json").read_text(encoding="utf-8"))
    system = new_system(told["model"], ("kidney", "chest"))
    begin_with(tmp_path / "start", system)
    first, second = (layer.weight for layer in system.clip.image_projection)
    assert torch.equal(first, second)
    with pytest.raises(ConfigError, match=r"does not take the weights of renalclip.*start/model\.yaml"):
        begin_with(tmp_path / "start", new_system({**told["model"], "embed_dim": 16}, ("kidney",)))
    with pytest.raises(ConfigError, match="medvl import-release"):
        begin_with(tmp_path, system)


def test_no_code_in_a_checkpoint_runs(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return print, ("code ran",)

    torch.save({"model": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ConfigError, match="cannot be read as tensors alone"):
        import_release("renalclip", tmp_path / "trap.pt", tmp_path / "start")
