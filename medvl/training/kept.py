"""What a finished stage leaves: its weights, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from medvl.errors import ConfigError
from medvl.files import whole
from medvl.training.distributed import World

WEIGHTS = "weights.safetensors"


def keep(module: nn.Module, folder: Path) -> None:
    """Write every weight of `module`, bring the file to disk, then drop the checkpoints on the way there."""
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
    with whole(folder / WEIGHTS) as part:
        save_file(tensors, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
    for left in folder.glob("checkpoint*"):
        left.unlink()


def take(module: nn.Module, folder: Path) -> bool:
    """Load what `keep` wrote; False when the stage is not finished.

    Raises:
        ConfigError: the file is cut short, or holds the weights of another model.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        return False
    try:
        module.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ConfigError(f"{path} cannot be used ({error}); remove {folder} to train this stage anew") from error
    return True


def settle(module: nn.Module, folder: Path, world: World, train: Callable[[], None]) -> None:
    """Bring `module` to the end of a stage: read what is kept, or `train` and keep it; every rank then holds the same bits."""
    if not world.lead((folder / WEIGHTS).is_file):
        train()
        if world.leads:
            keep(module, folder)
        world.agree()
        if world.leads:
            return
    take(module, folder)
