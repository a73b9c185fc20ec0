"""LoRA adapters as `peft` writes them, merged into a model's weights; needs no `peft`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medvl.errors import ConfigError

ROOT = "base_model.model."
UNSUPPORTED = ("use_dora", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias", "layer_replication")


def merge_lora(model: nn.Module, folder: str | Path) -> None:
    """Add `scale * B @ A` to each adapted weight, in float32, `scale` = alpha / r (alpha / sqrt(r) for rank-stabilised).

    Args:
        model: the base model, changed in place.
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        ConfigError: files missing, a kind of adapter that is not plain LoRA, or a layer the model does not have.
    """
    config, weights = _read(Path(folder))
    rank = int(config["r"])
    scale = float(config["lora_alpha"]) / (math.sqrt(rank) if config.get("use_rslora") else rank)
    names = sorted(key.removesuffix(".lora_A.weight") for key in weights if key.endswith(".lora_A.weight"))
    if len(weights) != 2 * len(names) or not names:
        raise ConfigError(f"LoRA adapter {folder}: {len(weights)} arrays are not pairs of lora_A and lora_B; merge it with peft")
    for name in names:
        layer = _layer(model, name, folder)
        down, up = weights[f"{name}.lora_A.weight"].float(), weights[f"{name}.lora_B.weight"].float()
        with torch.no_grad():
            layer.weight.copy_(layer.weight.float() + scale * (up @ down).to(layer.weight.device))


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and arrays of an adapter folder."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(
            f"LoRA adapter {folder} cannot be read ({error}); it needs adapter_config.json and adapter_model.safetensors"
        ) from error
    odd = [key for key in UNSUPPORTED if config.get(key)]
    if config.get("peft_type") != "LORA" or odd or config.get("bias", "none") != "none":
        raise ConfigError(
            f"LoRA adapter {folder}: only plain LoRA is merged here ({odd or config.get('peft_type')}); merge it with peft"
        )
    return config, weights


def _layer(model: nn.Module, name: str, folder: str | Path) -> nn.Linear:
    """The linear layer an adapter key means; adapters of a causal model name its trunk `model.`."""
    short = name.removeprefix(ROOT)
    for path in (short, short.removeprefix("model.")):
        try:
            found = model.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.Linear):
            return found
    raise ConfigError(f"LoRA adapter {folder}: the model has no linear layer {short}; take the model the adapter was trained on")
