"""The configuration of a medvl model in the Hugging Face layout: shapes, regions, and the input contract."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

from medvl.errors import ConfigError, did_you_mean
from medvl.imaging.preprocess import Contract
from medvl.models.bundle import Bundle
from medvl.models.system import SystemConfig


class MedvlConfig(PretrainedConfig):
    """`config.json` of a medvl model.

    Args:
        clip: shapes of both towers, as in a bundle's `model.json`.
        localiser: shapes of the net that finds regions.
        kinds: name and regions of every kind, in the model's order; a list, because the library sorts what has keys.
        contract: the input contract as JSON.
        streams, concepts: of concept streams, or None.
        logit_scale: by which cosines are multiplied in logits; that of training where the bundle tells it.
        vocab_size: of the tokenizer that travels with the model.
        bundle: name, hash and software of the bundle that this was.
    """

    model_type = "medvl"

    def __init__(
        self,
        *,
        clip: Mapping[str, Any] | None = None,
        localiser: Mapping[str, Any] | None = None,
        kinds: Sequence[Mapping[str, Any]] = (),
        contract: Mapping[str, Any] | None = None,
        streams: Mapping[str, Any] | None = None,
        concepts: Mapping[str, Sequence[str]] | None = None,
        logit_scale: float = 1.0,
        vocab_size: int = 0,
        bundle: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.clip = dict(clip or {})
        self.localiser = dict(localiser or {})
        self.kinds = [dict(kind) for kind in kinds]
        self.contract = dict(contract or {})
        self.streams = None if streams is None else dict(streams)
        self.concepts = {name: list(held) for name, held in (concepts or {}).items()}
        self.logit_scale = logit_scale
        self.vocab_size = vocab_size
        self.bundle = dict(bundle or {})
        super().__init__(**kwargs)

    @property
    def system(self) -> SystemConfig:
        """Shapes of the towers and streams."""
        return SystemConfig.model_validate({**self.clip, "streams": self.streams})

    @property
    def projection_dim(self) -> int:
        """Width of the common space."""
        return self.system.embed_dim

    @property
    def input_contract(self) -> Contract:
        """What the image tower takes."""
        return Contract.from_json(self.contract)

    def kind_of(self, region: str) -> int:
        """The number of the kind that a region belongs to, which decides its queries and its projection.

        Raises:
            ConfigError: no such region.
        """
        return number_of(self.kinds, region)


def kinds_of(bundle: Bundle) -> list[dict[str, Any]]:
    """Name and regions of every kind of a bundle."""
    return [{"name": name, "regions": list(regions)} for name, regions in bundle.kinds.items()]


def number_of(kinds: Sequence[Mapping[str, Any]], region: str) -> int:
    """The number of the kind that a region belongs to.

    Raises:
        ConfigError: no such region.
    """
    for number, kind in enumerate(kinds):
        if region in kind["regions"]:
            return number
    known = [name for kind in kinds for name in kind["regions"]]
    raise ConfigError(f"this model knows no region {region}; {did_you_mean(region, known)}")


def config_of(bundle: Bundle) -> MedvlConfig:
    """The configuration of a bundle's model."""
    shapes = bundle.values("model.json")
    return MedvlConfig(
        clip=shapes["clip"],
        localiser=shapes["localiser"],
        kinds=kinds_of(bundle),
        contract=bundle.contract.to_json(),
        streams=shapes.get("streams"),
        concepts=shapes.get("concepts"),
        logit_scale=_scale(bundle),
        vocab_size=_vocabulary(bundle),
        bundle={"name": bundle.name, "sha256": bundle.sha256, "software": str(bundle.manifest["software"])},
        architectures=["MedvlModel"],
        dtype="float32",
    )


def _scale(bundle: Bundle) -> float:
    """Of the last stage that aligned images with texts; 1 where no receipt tells it."""
    stages = bundle.values("metrics.json").get("stages", {}) if "metrics.json" in bundle else {}
    told = [float(stage["scale"]) for stage in stages.values() if isinstance(stage, Mapping) and "scale" in stage]
    return told[-1] if told else 1.0


def _vocabulary(bundle: Bundle) -> int:
    model = json.loads(bundle.text("tokenizer.json"))["model"]
    return len(model["vocab"])
