"""What a finished stage leaves: its weights, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

WEIGHTS = "weights.safetensors"


def keep(module: nn.Module, folder: Path) -> None:
    """Write every weight of `module`, then drop the checkpoints on the way there."""
    tensors = {key: value.detach().contiguous().clone() for key, value in module.state_dict().items()}
    part = folder / "weights.part"
    save_file(tensors, part)
    part.replace(folder / WEIGHTS)
    for left in folder.glob("checkpoint*"):
        left.unlink()


def take(module: nn.Module, folder: Path) -> bool:
    """Load what `keep` wrote; False when the stage is not finished."""
    if not (folder / WEIGHTS).is_file():
        return False
    module.load_state_dict(load_file(folder / WEIGHTS))
    return True
