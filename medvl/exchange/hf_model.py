"""A bundle's towers as a model of the transformers library. Safetensors only, every name matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Self, cast

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import ModelOutput
from transformers.utils.hub import cached_file

from medvl.errors import ConfigError
from medvl.exchange.hf_config import MedvlConfig
from medvl.models.clip import RegionClip
from medvl.models.config import LocaliserConfig
from medvl.models.localiser import Localiser, Place
from medvl.models.system import System
from medvl.models.weights import load_weights
from medvl.records import Volume

SOURCES = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")
STREAM_NEEDS = frozenset({"finding_logits", "anatomy_logits"})


@dataclass
class MedvlOutput(ModelOutput):
    """What `MedvlModel.forward` gives; parts that were not asked for are None.

    Args:
        loss: always None, training is `medvl train`.
        logits_per_image: (B, N) scaled cosines, and logits_per_text (N, B).
        text_embeds: (N, E) and image_embeds (B, E), unit vectors.
        text_model_output: states of the text tower, pooled.
        vision_model_output: image tokens (B, L, T), pooled (B, P).
        finding_logits: (B, F, 2) of concept streams, absent and present, and anatomy_logits (B, A, 2).
    """

    loss: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: BaseModelOutputWithPooling | None = None
    finding_logits: Tensor | None = None
    anatomy_logits: Tensor | None = None


class MedvlModel(PreTrainedModel):
    """Image tower, text tower and localiser of a bundle, under the names of the bundle's own weights.

    Args:
        config: shapes.
        tokenizer: of the small BERT; needed only where the model itself is to read texts.
    """

    config_class = MedvlConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    config: MedvlConfig

    def __init__(self, config: MedvlConfig, tokenizer: Tokenizer | None = None) -> None:
        super().__init__(config)
        concepts = config.concepts or {"anatomies": [], "findings": []}
        system = System(config.system, tokenizer or _blank(config.vocab_size), concepts["anatomies"], concepts["findings"])
        for name, child in system.named_children():
            self.add_module(name, child)
        self.localiser = Localiser(LocaliserConfig.model_validate(config.localiser))
        self.__dict__["_system"] = system  # the same modules, not registered twice
        self.post_init()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[Any] | None,
        *model_args: Any,
        config: PretrainedConfig | str | PathLike[Any] | None = None,
        dtype: torch.dtype | str | None = None,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The model in a folder or on the hub, in evaluation mode.

        Only `model.safetensors` is read, and every weight must fit: nothing stays at random and no pickle is opened. Weights are
        float32 unless `dtype` says otherwise. Of the other arguments those that say where files come from are heeded.

        Raises:
            ConfigError: no weights there, or weights that do not fit the configuration.
        """
        if pretrained_model_name_or_path is None:
            raise ConfigError("no model named; give a folder that `medvl export --to huggingface` wrote, or a model of the hub")
        where, path = {k: v for k, v in kwargs.items() if k in SOURCES}, str(pretrained_model_name_or_path)
        shapes = config if isinstance(config, str | PathLike) else path
        found = config if isinstance(config, MedvlConfig) else MedvlConfig.from_pretrained(shapes, **where)
        tokens = cached_file(path, "tokenizer.json", _raise_exceptions_for_missing_entries=False, **where)
        weights = cached_file(path, "model.safetensors", _raise_exceptions_for_missing_entries=False, **where)
        if weights is None:
            raise ConfigError(f"no model.safetensors in {path}; give a folder that `medvl export --to huggingface` wrote")
        model = cls(found, Tokenizer.from_file(tokens) if tokens else None)
        held = {name: value.float() if value.is_floating_point() else value for name, value in load_file(weights).items()}
        report = load_weights(model, held)
        wanted = getattr(torch, dtype) if isinstance(dtype, str) and dtype != "auto" else dtype
        if isinstance(wanted, torch.dtype):
            model.to(dtype=wanted)  # type: ignore[call-arg]  # transformers wraps the method without its self
        model.config.name_or_path = path
        model.eval()
        told = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "matched": list(report.matched)}
        return (model, told) if output_loading_info else model

    def _init_weights(self, module: nn.Module) -> None:
        """Parts initialise themselves as they are built."""

    @property
    def towers(self) -> RegionClip:
        """Both towers."""
        return cast(RegionClip, self.clip)

    def get_image_features(
        self, pixel_values: Tensor, kind: Tensor | None = None, region: str | Sequence[str] | None = None, **_: Any
    ) -> BaseModelOutputWithPooling:
        """Image tokens as `last_hidden_state`, and projected, not yet normalised features (B, E) as `pooler_output`.

        Args:
            pixel_values: (B, C, D, H, W) in [0, 1], as `MedvlImageProcessor` makes them.
            kind: (B,) int64 kinds of region; or
            region: name of the region, or one for each.

        Raises:
            ConfigError: neither, where the model knows several kinds, or an unknown region.
        """
        kinds = self._kinds(pixel_values, kind, region)
        seen = self.towers.image(pixel_values)
        projected = self.towers.project(self.towers.pool(seen, kinds), kinds)
        return BaseModelOutputWithPooling(last_hidden_state=seen.tokens, pooler_output=projected)

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutputWithPooling:
        """Token states as `last_hidden_state`, and projected features (B, E) as `pooler_output`, of ids (B, M) int64."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        read = self.towers.text(input_ids, mask)
        projected = self.towers.text_projection(read.pooled).float()
        return BaseModelOutputWithPooling(last_hidden_state=read.tokens, pooler_output=projected)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        kind: Tensor | None = None,
        region: str | Sequence[str] | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> MedvlOutput | tuple[Any, ...]:
        """Embeddings of images, of texts, or of both with their cosines times the logit scale.

        Raises:
            ConfigError: neither images nor texts, or as `get_image_features`.
        """
        if pixel_values is None and input_ids is None:
            raise ConfigError("give pixel_values, input_ids, or both")
        out = MedvlOutput()
        if pixel_values is not None:
            out.vision_model_output = self.get_image_features(pixel_values, kind, region)
            out.image_embeds = functional.normalize(_pooled(out.vision_model_output), dim=-1)
            if self.config.streams is not None:
                inputs = {"pixels": pixel_values, "kind": self._kinds(pixel_values, kind, region)}
                told = cast(System, self._system).represent(inputs, STREAM_NEEDS)
                out.finding_logits, out.anatomy_logits = told["finding_logits"], told["anatomy_logits"]
        if input_ids is not None:
            out.text_model_output = self.get_text_features(input_ids, attention_mask)
            out.text_embeds = functional.normalize(_pooled(out.text_model_output), dim=-1)
        if out.image_embeds is not None and out.text_embeds is not None:
            out.logits_per_text = self.config.logit_scale * out.text_embeds @ out.image_embeds.T
            out.logits_per_image = out.logits_per_text.T
        return out if return_dict is not False else out.to_tuple()

    def locate(self, volume: Volume) -> dict[str, Place]:
        """Centre of every region of a scan, for `MedvlImageProcessor`; below the localiser's `min_confidence` not found."""
        found: dict[str, Place] = self.localiser.locate(volume)
        return found

    def _kinds(self, pixels: Tensor, kind: Tensor | None, region: str | Sequence[str] | None) -> Tensor:
        """(B,) int64 on the device of `pixels`."""
        if kind is not None:
            return kind.to(pixels.device)
        if region is None:
            if len(self.config.kinds) > 1:
                names = [name for each in self.config.kinds for name in each["regions"]]
                raise ConfigError(f"say which region the pixels are of: region=, one of {', '.join(names)}, or kind=")
            return torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
        names = [region] * len(pixels) if isinstance(region, str) else list(region)
        return torch.tensor([self.config.kind_of(name) for name in names], device=pixels.device)

    def train(self, mode: bool = True) -> Self:
        """As for any module; the parts follow."""
        cast(System, self._system).training = mode
        super().train(mode)
        return self


def _pooled(output: BaseModelOutputWithPooling) -> Tensor:
    return cast(Tensor, output.pooler_output)


def _blank(size: int) -> Tokenizer:
    """A vocabulary of the right size that reads nothing, for models whose texts are tokenised outside."""
    return Tokenizer(models.WordLevel({f"[{number}]": number for number in range(max(1, size))}, unk_token="[0]"))  # noqa: S106
