"""What the model made of a study's regions, kept by `medvl infer` beside the findings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvl.errors import InputError
from medvl.models.bundle import Bundle

from .results import study_file
from .study import Study

_NONE = "These results hold no embeddings: an older medvl made them, or no region was read. Run medvl infer anew."


@dataclass(frozen=True, eq=False)
class Vectors:
    """Unit vectors (E,) float32 by region, and the bundle that made them."""

    by_region: dict[str, NDArray[np.float32]]
    model_sha256: str
    contract_hash: str

    def usable(self, study: Study) -> dict[str, NDArray[np.float32]]:
        """Those of regions that nothing was found against, as inference uses them for the prognosis."""
        sound = {region.name for region in study.regions if not region.reasons}
        return {name: vector for name, vector in self.by_region.items() if name in sound}


def read_vectors(root: Path, case_id: str) -> Vectors:
    """The embeddings of one study.

    Raises:
        InputError: ``embeddings_missing`` or ``embeddings_unreadable``, with a message for the page.
    """
    from safetensors import SafetensorError, safe_open

    path = study_file(root, case_id, "embeddings.safetensors")
    if not path.is_file():
        raise InputError("embeddings_missing", _NONE)
    try:
        with safe_open(path, framework="numpy") as file:
            meta = file.metadata() or {}
            found = {name: np.asarray(file.get_tensor(name), dtype=np.float32) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError("embeddings_unreadable", "The embeddings of this study cannot be read. Run it again.") from error
    return Vectors(found, meta.get("model_sha256", ""), meta.get("contract_hash", ""))


def other_bundle(study: Study, vectors: Vectors, bundle: Bundle) -> str | None:
    """Why numbers of this study may not be worked out with the viewer's bundle; None when they may."""
    made, given = vectors.model_sha256 or study.bundle.sha256, bundle.sha256
    if made == given:
        return None
    return f"The result was made by bundle {made[:12] or 'unknown'}; the viewer was given {given[:12]}. Start it with the same."
