"""The model card of the Hugging Face layout: what the hub reads as YAML, then the bundle's own card."""

from __future__ import annotations

import re
from typing import Any

import yaml

from medvl.models.bundle import Bundle

TAGS = ("medical", "radiology", "ct", "computed-tomography", "vision-language", "clip", "3d", "research-only")
TASK = "zero-shot-image-classification"
APACHE = "apache-2.0"

_USE = """
## Use

Research software. Not a medical device; not for diagnosis or treatment.

```python
import torch
from medvl.exchange.huggingface import MedvlImageProcessor, MedvlModel
from transformers import PreTrainedTokenizerFast

model = MedvlModel.from_pretrained(FOLDER)
processor = MedvlImageProcessor.from_pretrained(FOLDER)
tokenizer = PreTrainedTokenizerFast.from_pretrained(FOLDER)

volume = processor.read("study/")  # DICOM folder or NIfTI
images = processor(volume, model.locate(volume))
texts = tokenizer({texts}, padding=True, return_tensors="pt")
with torch.no_grad():
    out = model(images["pixel_values"], texts["input_ids"], texts["attention_mask"], kind=images["kind"])
print(out.logits_per_image)
```

The whole bundle lies in this folder, with calibration, thresholds and limits of familiarity:
`medvl import-bundle FOLDER --out BUNDLE` gives it back with the hash `{sha256}`, and `medvl infer` with it says findings with
evidence. The code above skips all of that: a cosine is no probability.
"""


def metadata(bundle: Bundle, license_id: str) -> dict[str, Any]:
    """The YAML block: licence, library, tags, task, and validation AUROC of every finding as a model index.

    Args:
        bundle: opened.
        license_id: as the hub spells it, such as ``apache-2.0``.
    """
    values: dict[str, Any] = {
        "license": license_id,
        "library_name": "medvl",
        "pipeline_tag": TASK,
        "language": ["en"],
        "tags": list(TAGS),
    }
    told = bundle.values("metrics.json") if "metrics.json" in bundle else {}
    scores = {name: value for name, value in told.get("validation_auroc", {}).items() if value is not None}
    if not scores:
        return values
    data, identity = _data(told)
    metrics = [{"type": "roc_auc", "name": f"AUROC, {name}", "value": round(float(value), 4)} for name, value in scores.items()]
    result = {
        "task": {"type": TASK, "name": "Findings, zero-shot"},
        "dataset": {"type": identity, "name": data, "split": "validation"},
        "metrics": metrics,
    }
    index = [{"name": bundle.name, "results": [result]}]
    return values | {"datasets": [identity], "metrics": ["roc_auc"], "model-index": index}


def _data(told: dict[str, Any]) -> tuple[str, str]:
    """What the validation patients were, in words and as an id; data of one's own have no name here."""
    calibrated = told.get("calibrated") or [{}]
    name = str((calibrated[-1].get("cohort") or {}).get("cohort") or "")
    if not name and "outcomes" in told:
        name = "the owner's validation patients"
    name = name or f"phantom seed {told.get('cohort', {}).get('seed', 0)}"
    return name, re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def card(bundle: Bundle, license_id: str, examples: list[str]) -> str:
    """`README.md` with metadata on top; `examples` are two sentences of the bundle's own prompts."""
    front = yaml.safe_dump(metadata(bundle, license_id), sort_keys=False, allow_unicode=True)
    use = _USE.replace("{texts}", repr(examples)).replace("{sha256}", bundle.sha256)
    return f"---\n{front}---\n\n{bundle.text('README.md').rstrip()}\n{use}"
