"""Bundles in the layouts of other software, and other projects' checkpoints as a start for ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medvl.exchange.huggingface import MedvlConfig, MedvlImageProcessor, MedvlModel

__all__ = ["MedvlConfig", "MedvlImageProcessor", "MedvlModel"]


def __getattr__(name: str) -> Any:
    """The classes above, which bring the transformers library with them, when they are asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from medvl.exchange import huggingface

    return getattr(huggingface, name)
