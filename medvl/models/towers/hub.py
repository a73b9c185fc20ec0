"""Models of the transformers library from a folder or the hub: safetensors only, no foreign code, no missing weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

from medvl.errors import ConfigError
from medvl.models.towers.base import TowerOptions, tokenizer_text

PADDED_POSITIONS = (
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "data2vec-text",
    "mpnet",
    "longformer",
)
NOT_SHAPE = ("_name_or_path", "transformers_version", "architectures", "dtype")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class HubOptions(TowerOptions):
    """Where a model comes from.

    Args:
        path: a folder, or a name on the hub.
        revision: a commit of the hub, so that the same name gives the same weights next year.
        local_files_only: take the folder or what is in the local cache and never ask the network.
        dtype: of weights and states. Pooled vectors are float32 either way.
        max_length: most tokens of a text; None takes what tokenizer and model allow, at most 512.
        lower_case: lower every text before the tokenizer sees it. Only for a vocabulary without capitals whose tokenizer
            does not lower by itself; `casing_report` says so.
        checkpointing: compute states again in the backward pass instead of keeping them.
    """

    path: str
    revision: str | None = None
    local_files_only: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_length: int | None = None
    lower_case: bool = False
    checkpointing: bool = False

    def source(self) -> dict[str, Any]:
        """Arguments every `from_pretrained` gets."""
        return {"revision": self.revision, "local_files_only": self.local_files_only, "trust_remote_code": False}


def _refuse(options: HubOptions, what: str, error: Exception) -> ConfigError:
    """The error for a model that does not load, with the next step."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    where = "set local_files_only: false to download it, or " if options.local_files_only else ""
    return ConfigError(
        f"text tower: {what} of {options.path} cannot be loaded ({first}); {where}give a folder with config.json, "
        "tokenizer.json and model.safetensors"
    )


def check_path(options: HubOptions) -> None:
    """Stop where `path` means a folder that is not there; the library would take it for a hub name.

    Raises:
        ConfigError: no such folder.
    """
    looks_like_folder = options.path.startswith(("/", ".", "~")) or options.path.count("/") > 1
    if looks_like_folder and not Path(options.path).is_dir():
        raise ConfigError(f"text tower: there is no folder {options.path}; check the path, or give a hub name such as owner/name")


def load_config(options: HubOptions) -> PreTrainedConfig:
    """The model's configuration.

    Raises:
        ConfigError: not found, or it asks for code of its own.
    """
    check_path(options)
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(options.path, **options.source())
    except (OSError, ValueError, KeyError) as error:
        raise _refuse(options, "the configuration", error) from error
    return config


def load_tokenizer(options: HubOptions) -> Any:
    """The model's own tokenizer, with its own casing.

    Raises:
        ConfigError: not found, or without a fast implementation.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(options.path, **options.source())
    except (OSError, ValueError, KeyError) as error:
        raise _refuse(options, "the tokenizer", error) from error
    if not tokenizer.is_fast:
        raise ConfigError(
            f"text tower: {options.path} has only a slow tokenizer; save its tokenizer.json with transformers first"
        )
    return tokenizer


def load_model(options: HubOptions, config: PreTrainedConfig) -> PreTrainedModel:
    """The encoder in the wanted precision, without an unused pooler on top, in evaluation mode.

    Raises:
        ConfigError: not found, no safetensors, or weights that are missing; a layer left at random is never used.
    """
    auto = AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel
    try:
        model, info = auto.from_pretrained(
            options.path,
            config=config,
            dtype=DTYPES[options.dtype],
            use_safetensors=True,
            output_loading_info=True,
            **options.source(),
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _refuse(options, "the weights", error) from error
    missing = sorted(str(key) for key in info["missing_keys"] if not str(key).startswith("pooler."))
    if missing:
        raise ConfigError(
            f"text tower: {options.path} lacks {len(missing)} weights of its own model, first {missing[0]}; get them whole"
        )
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    if options.checkpointing:
        model.gradient_checkpointing_enable()
    found: PreTrainedModel = model.eval()
    return found


def text_length(options: HubOptions, config: PreTrainedConfig, tokenizer: Any) -> int:
    """Most tokens of a text: what was asked for, or what tokenizer and model allow, at most 512.

    Raises:
        ConfigError: asked for more than the model has positions.
    """
    positions = getattr(config, "max_position_embeddings", None)
    allowed = positions if isinstance(positions, int) and positions > 0 else 1 << 20
    if config.model_type in PADDED_POSITIONS:
        allowed -= config.pad_token_id + 1
    if options.max_length is None:
        return int(min(512, allowed, tokenizer.model_max_length))
    if options.max_length > allowed:
        raise ConfigError(f"text tower: {options.path} reads {allowed} tokens, max_length asks for {options.max_length}")
    return options.max_length


def describe(options: HubOptions, config: PreTrainedConfig, tokenizer: Any, max_length: int) -> dict[str, Any]:
    """What decides the numbers of a tower from files: equal for the same files in another place."""
    shape = {key: value for key, value in config.to_dict().items() if key not in NOT_SHAPE}
    kept = options.model_dump(exclude={"frozen", "path", "revision", "local_files_only", "max_length", "checkpointing"})
    return {"options": kept, "max_length": max_length, "config": shape, "tokenizer": tokenizer_text(tokenizer.backend_tokenizer)}
