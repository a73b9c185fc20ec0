"""Loading weights without surprises: every name is matched or reported, and names of other projects are mapped to ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from medvl.errors import ConfigError

_NESTED = ("state_dict", "model_state_dict", "model")


class LoadReport(NamedTuple):
    """What became of every name.

    Args:
        matched: loaded.
        missing: of the module, without weights: they stay as they were.
        unexpected: of the weights, unknown to the module.
        wrong_shape: in both, with different shapes.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]


@dataclass(frozen=True)
class KeyMap:
    """Names of someone else's weights as names of ours. A name that no rule covers is kept, so that it shows as unexpected.

    Args:
        names: (pattern of the whole name, our name), the first that fits counts; ours may refer to groups as in `re.sub`. With
            several names of ours the tensor is cut into as many equal parts along its first axis.
        others: patterns of names that belong to parts we do not load here.
        change: (our name, tensor) to tensor, for weights that are stored otherwise.
    """

    names: tuple[tuple[str, str | tuple[str, ...]], ...]
    others: tuple[str, ...] = ()
    change: Callable[[str, Tensor], Tensor] | None = None

    def __call__(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights under our names.

        Raises:
            ConfigError: two names become the same.
        """
        ours: dict[str, Tensor] = {}
        for theirs, tensor in state.items():
            for name, part in self._parts(theirs, tensor):
                if name in ours:
                    raise ConfigError(f"two weights become {name}, one of them {theirs}; load one model's weights at a time")
                ours[name] = part if self.change is None else self.change(name, part)
        return ours

    def _parts(self, theirs: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
        for pattern, ours in self.names:
            if match := re.fullmatch(pattern, theirs):
                names = (ours,) if isinstance(ours, str) else ours
                parts = (tensor,) if len(names) == 1 else tensor.chunk(len(names))
                return [(match.expand(name), part) for name, part in zip(names, parts, strict=True)]
        if any(re.fullmatch(pattern, theirs) for pattern in self.others):
            return []
        return [(theirs, tensor)]


def load_weights(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    key_map: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None,
    strict: bool = True,
) -> LoadReport:
    """Load `state` into `module`, in place, and say what fitted.

    Args:
        module: takes the weights.
        state: names and tensors.
        key_map: applied to `state` first.
        strict: everything must fit. If False, what fits is loaded and the report says what did not.

    Raises:
        ConfigError: something does not fit under `strict`, or nothing fits at all; the module is then unchanged.
    """
    given = key_map(state) if key_map is not None else dict(state)
    own = module.state_dict()
    shared = [name for name in own if name in given]
    matched = [name for name in shared if own[name].shape == given[name].shape]
    wrong = [f"{n} {tuple(given[n].shape)} for {tuple(own[n].shape)}" for n in shared if own[n].shape != given[n].shape]
    report = LoadReport(
        tuple(matched), tuple(n for n in own if n not in given), tuple(n for n in given if n not in own), tuple(wrong)
    )
    if not matched or (strict and (report.missing or report.unexpected or report.wrong_shape)):
        raise ConfigError(_complaint(type(module).__name__, report))
    module.load_state_dict({name: given[name] for name in matched}, strict=False)
    return report


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Names and tensors on the CPU of a `.safetensors` file, or of a `.pt`, `.pth`, `.ckpt` or `.bin` checkpoint.

    Checkpoints are read as tensors and plain containers only, no code in them runs. Weights nested under `state_dict`,
    `model_state_dict` or `model` are found.

    Raises:
        ConfigError: no such file, an unknown kind, or a checkpoint with more than tensors in it.
    """
    if not path.is_file():
        raise ConfigError(f"no weights at {path}; give a .safetensors file or a checkpoint")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix not in (".pt", ".pth", ".ckpt", ".bin"):
            raise ConfigError(f"{path.name}: weights end in .safetensors, .pt, .pth, .ckpt or .bin; rename or convert the file")
        held = torch.load(path, map_location="cpu", weights_only=True)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{path.name} cannot be read as tensors alone ({type(error).__name__}); "
            "where you trust its source, open it there and save its state dict as .safetensors"
        ) from error
    return _tensors(held, path.name)


def _tensors(held: Any, name: str) -> dict[str, Tensor]:
    """The state dict within what a checkpoint holds."""
    for key in _NESTED:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    if not isinstance(held, Mapping) or not held:
        raise ConfigError(f"{name} holds a {type(held).__name__}, no state dict; save the model's state_dict()")
    strange = [str(key) for key, value in held.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strange:
        raise ConfigError(f"{name}: {strange[0]} is no tensor ({len(strange)} such); save the model's state_dict() alone")
    return dict(held)


def _complaint(module: str, report: LoadReport) -> str:
    kinds = {"missing": report.missing, "unexpected": report.unexpected, "of another shape": report.wrong_shape}
    found = [f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names]
    return (
        f"weights do not fit {module}: {len(report.matched)} fit, {'; '.join(found)}; "
        "build the model with the shape they were trained with, or give the key map of their release"
    )


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
