"""Checkpoints that a kill at any moment cannot spoil: a new one counts only once it is complete, and the one before stays."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medvl.errors import ConfigError

State = dict[str, Any]
_INDEX = "checkpoint.json"


class Checkpoints:
    """The checkpoints of one stage in its folder.

    `checkpoint.json` names the newest and the one before, each with the SHA-256 of its file of tensors. It is replaced in one
    move after that file is on disk, so a reader sees either the old pair or the new one.

    Args:
        folder: of the stage.
        binding: options that a run must share with a checkpoint to go on from it.
    """

    def __init__(self, folder: Path, binding: Mapping[str, Any]) -> None:
        self.folder, self.binding = folder, dict(binding)
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, tensors: Mapping[str, Tensor], state: State) -> None:
        """Keep tensors and a JSON state that has `step`, and may name a file of best weights as `best_file`.

        With `finished` in the state nothing before is kept.
        """
        name = f"checkpoint-{state['step']:08d}{'-final' if state.get('finished') else ''}.safetensors"
        entry = {"file": name, "sha256": self.write_tensors(name, tensors), "state": state}
        before = [] if state.get("finished") else [old for old in self._entries() if old["file"] != name][:1]
        _replace(self.folder / _INDEX, json.dumps({"options": self.binding, "entries": [entry, *before]}, indent=1).encode())
        self._tidy([entry, *before])

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> str:
        """Write a file of tensors in one move; its SHA-256."""
        part = self.folder / f"{name}.part"
        save_file(_apart(tensors), part)
        digest = _sha256(part)
        _settle(part, self.folder / name)
        return digest

    def read(self, name: str) -> dict[str, Tensor]:
        """Tensors of a file that `write_tensors` wrote."""
        try:
            return load_file(self.folder / name)
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{self.folder / name} cannot be read ({error}); remove the folder to train anew") from error

    def last(self) -> tuple[dict[str, Tensor], State] | None:
        """Tensors and state of the newest complete checkpoint; None when there is none.

        Raises:
            ConfigError: the folder belongs to other options, or no checkpoint in it is whole.
        """
        entries = self._entries()
        for entry in entries:
            path = self.folder / entry["file"]
            if path.exists() and _sha256(path) == entry["sha256"]:
                return load_file(path), entry["state"]
        if entries:
            named = ", ".join(entry["file"] for entry in entries)
            raise ConfigError(f"no checkpoint in {self.folder} is whole ({named}); remove the folder to train this stage anew")
        return None

    def _entries(self) -> list[dict[str, Any]]:
        path = self.folder / _INDEX
        if not path.exists():
            return []
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            held, entries = dict(index["options"]), list(index["entries"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is not an index of checkpoints; remove the folder to train this stage anew") from error
        names = sorted(held.keys() | self.binding.keys())
        changed = [
            f"{name} was {held.get(name)}, is {self.binding.get(name)}"
            for name in names
            if held.get(name) != self.binding.get(name)
        ]
        if changed:
            raise ConfigError(
                f"{self.folder} holds a stage with other options: {'; '.join(changed)}. "
                "Go on with the old ones, give a new folder, or remove that one"
            )
        return entries

    def _tidy(self, kept: list[dict[str, Any]]) -> None:
        names = {entry["file"] for entry in kept} | {entry["state"].get("best_file") for entry in kept}
        for pattern in ("checkpoint-*.safetensors*", "best-*.safetensors*"):
            for path in self.folder.glob(pattern):
                if path.name not in names:
                    path.unlink()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the processor, none sharing memory with another."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        apart[name] = value.clone() if value.untyped_storage().data_ptr() in seen else value
        seen.add(value.untyped_storage().data_ptr())
    return apart


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    _settle(part, path)


def _settle(part: Path, path: Path) -> None:
    """Bring a finished part to disk, then to its name, and the name to disk."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
