"""Everything a recipe may train, in one module: the aligned towers, concept streams and a decoder for masked voxels.

`represent` is the only forward pass of training: it gives by name what objectives ask for, and nothing else is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from medvl.errors import ConfigError
from medvl.models.clip import RegionClip
from medvl.models.concepts import ConceptBank
from medvl.models.config import ClipConfig
from medvl.models.encoders.base import Encoded
from medvl.models.encoders.vit import VisionTransformer
from medvl.models.masked import MaskedAutoencoder, MaskedOptions
from medvl.models.streams import ConceptStreams, StreamsConfig

PARTS = ("image", "pool", "image_projection", "text", "text_projection", "streams", "reconstruct", "objectives")
MARK_GAIN, MARK_OFFSET = 8.0, -5.0
_STREAMS = frozenset(
    f"{which}_{what}" for which in ("finding", "anatomy") for what in ("logits", "states", "prototype", "attention")
)
_TEXT = frozenset({"text", "text_tokens", "text_states"})
_STATEMENTS = frozenset({"statements", "statement_states"})
_TOKENS = frozenset({"tokens", "token_grid", "image_tokens", "marks"}) | _STREAMS
_IMAGE = frozenset({"pooled", "image"}) | _TOKENS


class SystemConfig(ClipConfig):
    """Shapes of all parts.

    Args:
        streams: of MeDSLIP's two streams, or None.
        reconstruct: options of the masked autoencoder around a ``vit`` image tower, or None.
        marks: how many channels of the evidence pool's maximum are taught where findings lie.
    """

    streams: StreamsConfig | None = None
    reconstruct: MaskedOptions | None = None
    marks: int = 0


class System(nn.Module):
    """The trained whole.

    Args:
        config: shapes.
        tokenizer: of the small BERT.
        anatomies, findings: names of the concepts that the streams ask; their banks start at nothing, see `fill_banks`.

    Raises:
        ConfigError: parts that do not fit one another.
    """

    def __init__(self, config: SystemConfig, tokenizer: Tokenizer, anatomies: Sequence[str], findings: Sequence[str]) -> None:
        super().__init__()
        self.config = config
        self.clip = RegionClip(config, tokenizer)
        self.streams: ConceptStreams | None = None
        self.reconstruct: MaskedAutoencoder | None = None
        if config.streams is not None:
            width = self.clip.text.width
            self.streams = ConceptStreams(config.streams, self.clip.image.token_dim, width, len(anatomies), len(findings))
            self.anatomies = ConceptBank(anatomies, torch.zeros(len(anatomies), width))
            self.findings = ConceptBank(findings, torch.zeros(len(findings), width))
        if config.reconstruct is not None:
            if not isinstance(self.clip.image, VisionTransformer):
                raise ConfigError(f"masked reconstruction needs model.image.name: vit, got {config.image.name}")
            self.reconstruct = MaskedAutoencoder(self.clip.image, config.reconstruct)
        if config.marks and config.image.pool != "evidence":
            raise ConfigError("marks teach the evidence pool; set model.image.pool: evidence")
        if config.marks > config.image.peak_dim:
            raise ConfigError(f"{config.marks} marks need as many channels; model.image.peak_dim is {config.image.peak_dim}")

    def part(self, name: str) -> nn.Module:
        """The module that a recipe calls `name`, one of `PARTS` but objectives.

        Raises:
            ConfigError: the model has no such part.
        """
        own = self.streams if name == "streams" else self.reconstruct if name == "reconstruct" else getattr(self.clip, name)
        if own is None:
            raise ConfigError(f"the recipe trains {name}, but model.{name} is not set")
        module: nn.Module = own
        return module

    def concepts(self) -> dict[str, Tensor]:
        """The frozen banks: anatomies (A, C) and findings (F, C); empty without streams."""
        if self.streams is None:
            return {}
        return {"anatomies": self.anatomies(), "findings": self.findings()}

    def fill_banks(self, anatomies: Mapping[str, str], findings: Mapping[str, str]) -> None:
        """Embed each concept's sentence with the text tower as it is now; from here on the banks stay."""
        for bank, said in ((self.anatomies, anatomies), (self.findings, findings)):
            bank.load_state_dict(ConceptBank.from_tower(self.clip.text, {k: [v] for k, v in said.items()}).state_dict())

    def represent(self, inputs: Mapping[str, Tensor], needs: frozenset[str]) -> dict[str, Tensor]:
        """What is needed of samples (pixels (B, C, D, H, W) or features (B, P), kind (B,), ids, mask) and statements."""
        found: dict[str, Tensor] = {}
        if "reconstruction" in needs:
            if self.reconstruct is None:
                raise ConfigError("masked image modelling needs model.reconstruct")
            rebuilt = self.reconstruct(inputs["pixels"], inputs["seed"])
            found |= {"reconstruction": rebuilt["reconstruction"], "reconstruction_target": rebuilt["target"]}
        if needs & _IMAGE:
            found |= self._images(inputs, needs)
        if needs & _TEXT:
            found |= self._texts(inputs, needs)
        if needs & _STATEMENTS:
            pooled = self.clip.text(inputs["statement_ids"], inputs["statement_mask"]).pooled
            found["statement_states"] = pooled
            found["statements"] = functional.normalize(self.clip.text_projection(pooled).float(), dim=-1)
        return found

    def _images(self, inputs: Mapping[str, Tensor], needs: frozenset[str]) -> dict[str, Tensor]:
        clip, kind, found = self.clip, inputs["kind"], {}
        if "features" in inputs:
            if needs & _TOKENS:
                raise ConfigError(
                    f"cached features hold no image tokens, needed for {sorted(needs & _TOKENS)}; set images: pixels"
                )
            pooled = inputs["features"]
        else:
            encoded: Encoded = clip.image(inputs["pixels"])
            pooled = clip.pool(encoded, kind)
            found = self._tokens(encoded, kind, needs)
        if needs & {"pooled"}:
            found["pooled"] = pooled
        if needs & {"image"}:
            found["image"] = functional.normalize(clip.project(pooled, kind), dim=-1)
        return found

    def _tokens(self, encoded: Encoded, kind: Tensor, needs: frozenset[str]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if "tokens" in needs:
            found["tokens"] = encoded.tokens
        if "token_grid" in needs:
            found["token_grid"] = torch.tensor(encoded.grid)
        if "image_tokens" in needs:
            found["image_tokens"] = self.clip.embed_tokens(encoded, kind)
        if "marks" in needs:
            peak = self.clip.pool.peak(encoded.tokens.float())  # type: ignore[operator]
            found["marks"] = MARK_GAIN * peak[..., : self.config.marks] + MARK_OFFSET
        if needs & _STREAMS:
            found |= self._streams(encoded, attention=any(n.endswith("attention") for n in needs))
        return found

    def _streams(self, encoded: Encoded, *, attention: bool) -> dict[str, Tensor]:
        if self.streams is None:
            raise ConfigError("this objective needs model.streams")
        banks = self.concepts()
        out: dict[str, Tensor] = self.streams(
            encoded.tokens, encoded.grid, banks["anatomies"], banks["findings"], attention=attention
        )
        return out

    def _texts(self, inputs: Mapping[str, Tensor], needs: frozenset[str]) -> dict[str, Tensor]:
        if "text_features" in inputs:
            states = inputs["text_features"]
            if "text_tokens" in needs:
                raise ConfigError("cached texts hold no token states; set texts: live for token-wise alignment")
            return {"text_states": states, "text": functional.normalize(self.clip.text_projection(states).float(), dim=-1)}
        told = self.clip.text(inputs["ids"], inputs["mask"])
        found = {"text_states": told.pooled}
        if "text" in needs:
            found["text"] = functional.normalize(self.clip.text_projection(told.pooled).float(), dim=-1)
        if "text_tokens" in needs:
            found["text_tokens"] = functional.normalize(self.clip.text_projection(told.tokens).float(), dim=-1)
            found["text_mask"] = told.mask
        return found
