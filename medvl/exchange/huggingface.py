"""A bundle as a folder in the Hugging Face layout, and the classes that load one.

Importing this module registers the model, so that `AutoModel` and `AutoConfig` know `model_type: medvl`. `AutoImageProcessor`
takes classes for flat pictures only; load `MedvlImageProcessor` by its own name.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from medvl.exchange.hf_card import card
from medvl.exchange.hf_config import MedvlConfig, config_of
from medvl.exchange.hf_model import MedvlModel, MedvlOutput
from medvl.exchange.hf_processor import MedvlImageProcessor, processor_of
from medvl.exchange.layout import LaidOut, growing, lay_out, open_laid_out
from medvl.heads.zeroshot import questions
from medvl.models.bundle import Bundle
from medvl.models.config import ClipConfig
from medvl.models.tokenizer import SPECIALS
from medvl.models.towers.registry import build_tower
from medvl.text.prompts import load_findings

__all__ = ["MedvlConfig", "MedvlImageProcessor", "MedvlModel", "MedvlOutput", "write_huggingface"]
TOKENIZER = "tokenizer.json"
_NAMES = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIALS, strict=True))

AutoConfig.register(MedvlConfig.model_type, MedvlConfig, exist_ok=True)
AutoModel.register(MedvlConfig, MedvlModel, exist_ok=True)


def write_huggingface(bundle: Bundle, out: Path, license_id: str = "other") -> LaidOut:
    """Write `bundle` to the folder `out`, in which transformers and `MedvlModel.from_pretrained` find their files.

    Args:
        bundle: opened.
        out: not there, or empty.
        license_id: of the weights, for the card.

    Raises:
        ConfigError: `out` is not empty, or the text tower's own tokenizer cannot be loaded.
    """
    text = ClipConfig.model_validate(bundle.values("model.json")["clip"]).text
    with growing(out) as part:
        lay_out(bundle, part, (TOKENIZER,) if text.name == "bert" else ())
        if text.name == "bert":
            _tokenizer_files(part, text.max_length)
        else:
            build_tower(text.name, options=text.options).tokenizer.save_pretrained(part)  # type: ignore[operator, union-attr]
        config_of(bundle).save_pretrained(part)
        processor_of(bundle).save_pretrained(part)
        (part / "README.md").write_text(card(bundle, license_id, _examples(bundle)), encoding="utf-8")
    return open_laid_out(out)


def _tokenizer_files(folder: Path, max_length: int) -> None:
    """What transformers reads beside `tokenizer.json`, which itself stays as it is."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(folder / TOKENIZER)), model_max_length=max_length, **_NAMES
    )
    with TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        for path in Path(scratch).iterdir():
            if path.name != TOKENIZER:
                shutil.copyfile(path, folder / path.name)
    values = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _examples(bundle: Bundle) -> list[str]:
    """A sentence for, and one against, the first finding."""
    findings = load_findings(bundle.text("findings.yaml"))
    _, finding, region = next(questions(findings, bundle.kinds))
    present, absent = finding.prompts(region)
    return [present[0], absent[0]]
