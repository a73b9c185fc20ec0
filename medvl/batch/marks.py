"""What tells runs on one results folder apart: who answers, and the way in which DICOM objects are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from medvl.delivery.deidentify import Deidentifier

if TYPE_CHECKING:
    from medvl.batch.options import Options
    from medvl.inference.predictor import Predictor
    from medvl.models.localiser import Place


@dataclass(frozen=True)
class By:
    """Who answers studies.

    Args:
        bundle: SHA-256 of the bundle.
        contract: hash of its preprocessing contract.
        answers: hash of all that answers depend on besides the study; a study done by another one is queued again.
    """

    bundle: str
    contract: str
    answers: str

    def columns(self) -> dict[str, str]:
        """As the ledger keeps it."""
        return asdict(self)


def by_of(predictor: Predictor, options: Options) -> By:
    """Who answers in a run: bundle, a user's questions, and the options that change what is written."""
    bundle, asked = predictor.bundle, predictor.asked
    answers = bundle.sha256[:32] + (asked["sha256"][:32] if asked else "")
    more: dict[str, Any] = {} if options.explain else {"explain": False}
    more |= {"bf16": True} if predictor.bf16 else {}
    more |= {"given": _given(options.given)} if options.given else {}
    if more:  # what is the rule leaves the hash of ledgers of before as it was
        answers = hashlib.sha256(json.dumps([answers, more], sort_keys=True).encode()).hexdigest()
    return By(bundle.sha256, bundle.contract.hash, answers)


def way_of(options: Options) -> str | None:
    """The way in which a run makes objects: kinds, de-identification and a fingerprint of its key; None where it makes none.

    Raises:
        ConfigError: a de-identification key that can be guessed.
    """
    if not options.kinds:
        return None
    hidden = None
    if options.deidentify is not None:
        key = Deidentifier(options.deidentify_key).fingerprint
        hidden = {**asdict(options.deidentify), "key": key}
    return json.dumps({"kinds": sorted(set(options.kinds)), "deidentify": hidden}, sort_keys=True)


def _given(places: Mapping[str, Place]) -> dict[str, list[float]]:
    """Places to a hundredth of a millimetre."""
    return {name: [round(float(c), 2) for c in (*place.center_lps, place.confidence)] for name, place in places.items()}
