"""Training of the captioner on cached image tokens, by teacher forcing; and its folder on disk."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from medvl.data.cohort import Cohort
from medvl.errors import ConfigError
from medvl.files import replace_text, whole, write_json
from medvl.heads.draft_tokens import TokenCache
from medvl.models.captioner import Captioner, CaptionerConfig, pad
from medvl.models.decoding import Decoding, encode_text
from medvl.text.report import split_sentences

SCHEMA = "medvl.captioner/1"
Told = Callable[[int, float, float], None]


@dataclass(frozen=True)
class CaptionTraining:
    """How it is trained.

    Args:
        steps, batch, learning_rate, warmup, weight_decay: AdamW, linear rise, then cosine to nothing.
        smoothing: label smoothing.
        clip_norm: largest norm of the gradient.
        validate_every: steps between losses on validation regions; the weights with the lowest are kept.
        seconds: after which the run ends early with what it has, None for no limit. The rate falls by whichever of steps and
            seconds is used up faster, so that a run that is cut has come down as well.
        seed: of weights, batches and dropout.
    """

    steps: int = 900
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: int = 30
    weight_decay: float = 0.02
    smoothing: float = 0.05
    clip_norm: float = 1.0
    validate_every: int = 100
    seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if min(self.steps, self.batch, self.validate_every) < 1 or self.learning_rate <= 0:
            raise ConfigError("captioner: steps, batch, validate_every and learning_rate must be above 0")
        if not 0 <= self.smoothing < 1:
            raise ConfigError(f"captioner: smoothing is {self.smoothing}; it must be at least 0 and below 1")


@dataclass(frozen=True, eq=False)
class Captions:
    """Regions with tokens and a text: rows of a cache, and ids of each text."""

    cache: TokenCache
    rows: NDArray[np.int64]
    ids: list[list[int]]

    def batch(self, chosen: NDArray[np.int64], pad_id: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ids (B, M), tokens (B, L, 2 T), pooled (B, P), regions (B,)."""
        return pad([self.ids[i] for i in chosen], pad_id), *self.cache.batch(self.rows[chosen])


def captions(cache: TokenCache, cohort: Cohort, tokenizer: Tokenizer, max_length: int) -> Captions:
    """The texts of a cohort's regions, for those that have one."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rows, ids = [], []
    for k, (row, column) in enumerate(zip(cache.rows, cache.columns, strict=True)):
        sentences = split_sentences(cohort.cases[int(row)]["region_texts"].get(cohort.regions[int(column)], ""))
        if sentences:
            rows.append(k)
            ids.append(encode_text(tokenizer, sentences, max_length))
    return Captions(cache, np.array(rows, dtype=np.int64), ids)


def shapes(cache: TokenCache, regions: Sequence[str], tokenizer: Tokenizer, **changes: float) -> CaptionerConfig:
    """A captioner's config that fits a cache and a tokenizer."""
    special = {
        f"{name}_id": tokenizer.token_to_id(word) for name, word in (("pad", "[PAD]"), ("start", "[CLS]"), ("end", "[SEP]"))
    }
    missing = [name for name, value in special.items() if value is None]
    if missing:
        raise ConfigError(f"the tokenizer has no {', '.join(missing)}; a captioner needs [PAD], [CLS] and [SEP]")
    grid = round(cache.tokens.shape[1] ** (1 / 3))
    fixed = {"token_dim": cache.tokens.shape[2] // 2, "pooled_dim": cache.pooled.shape[1], "grid": grid}
    named = {"regions": tuple(regions), "vocab_size": tokenizer.get_vocab_size()}
    return CaptionerConfig.model_validate({**named, **special, **fixed, **changes})


def train_captioner(
    config: CaptionerConfig, train: Captions, validation: Captions, options: CaptionTraining, told: Told | None = None
) -> tuple[Captioner, list[tuple[int, float, float]]]:
    """A captioner with the weights of its lowest validation loss, and (step, training loss, validation loss) on the way.

    Raises:
        ConfigError: no texts, or the loss is not finite.
    """
    if not len(train.rows) or not len(validation.rows):
        raise ConfigError("captioner: training and validation both need regions with a text")
    with torch.random.fork_rng([]):
        torch.manual_seed(options.seed)
        model = Captioner(config)
        matrices = [p for p in model.parameters() if p.ndim > 1]
        vectors = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": options.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98))
        curve: list[tuple[int, float, float]] = []
        best, best_loss, started = copy.deepcopy(model.state_dict()), math.inf, time.process_time()
        rng, running = np.random.default_rng([options.seed, 17]), 0.0
        for step in range(options.steps):
            used = (step + 1) / options.steps
            if options.seconds is not None:
                used = max(used, (time.process_time() - started) / options.seconds)
            loss = _step(model, optimiser, train, options, rng, step, min(used, 1.0))
            running = loss if step == 0 else 0.95 * running + 0.05 * loss
            last = used >= 1
            if last or (step + 1) % options.validate_every == 0:
                held = caption_loss(model, validation)
                curve.append((step + 1, round(running, 4), round(held, 4)))
                if told:
                    told(*curve[-1])
                if held < best_loss:
                    best, best_loss = copy.deepcopy(model.state_dict()), held
            if last:
                break
    model.load_state_dict(best)
    return model.eval(), curve


def _step(
    model: Captioner,
    optimiser: torch.optim.Optimizer,
    data: Captions,
    options: CaptionTraining,
    rng: np.random.Generator,
    step: int,
    used: float,
) -> float:
    """One step on a batch of texts of like length; its loss."""
    model.train()
    share = min(1.0, (step + 1) / max(options.warmup, 1)) * 0.5 * (1 + math.cos(math.pi * used))
    for group in optimiser.param_groups:
        group["lr"] = options.learning_rate * share
    drawn = rng.integers(len(data.rows), size=4 * options.batch)
    drawn = drawn[np.argsort([len(data.ids[i]) for i in drawn], kind="stable")]
    quarter = int(rng.integers(4))
    chosen = drawn[quarter * options.batch : (quarter + 1) * options.batch]
    with sdpa_kernel(SDPBackend.MATH):  # on a CPU the fast kernel's way back takes longer than all the rest
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(*data.batch(chosen, model.config.pad_id), smoothing=options.smoothing)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ConfigError(f"captioner: the loss is {value} at step {step}; lower the learning rate")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
    optimiser.step()
    return value


@torch.no_grad()
def caption_loss(model: Captioner, data: Captions, limit: int = 512, batch: int = 128) -> float:
    """Mean cross-entropy a word, in nats, over up to `limit` regions spread over the data, without smoothing."""
    model.eval()
    rows = np.unique(np.linspace(0, len(data.rows) - 1, min(limit, len(data.rows))).astype(np.int64))
    total = words = 0.0
    for start in range(0, len(rows), batch):
        ids, tokens, pooled, regions = data.batch(rows[start : start + batch], model.config.pad_id)
        n = float((ids[:, 1:] != model.config.pad_id).sum())
        with torch.autocast("cpu", torch.bfloat16):
            total, words = total + n * float(model.loss(ids, tokens, pooled, regions)), words + n
    return total / words


def save_captioner(
    folder: Path, model: Captioner, tokenizer: Tokenizer, tower_sha256: str, options: CaptionTraining, decoding: Decoding
) -> None:
    """Write `captioner.safetensors`, `captioner-tokenizer.json` and, last, `captioner.json`.

    Args:
        folder: made when missing.
        model: what writes.
        tokenizer: of its words.
        options: how it was trained.
        decoding: how it is to write.
        tower_sha256: SHA-256 of the weights file whose image tokens it was trained on; it fits no other.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / "captioner.safetensors") as part:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, part)
    replace_text(folder / "captioner-tokenizer.json", tokenizer.to_str())
    told = {"schema": SCHEMA, "tower_sha256": tower_sha256, "config": model.config.model_dump(), "training": asdict(options)}
    write_json(folder / "captioner.json", {**told, "decoding": decoding.model_dump()})


def load_captioner(folder: Path, tower_sha256: str) -> tuple[Captioner, Tokenizer, Decoding]:
    """What `save_captioner` wrote.

    Raises:
        ConfigError: nothing there, another schema, or it was trained on the tokens of another tower.
    """
    from safetensors.torch import load_file

    try:
        values = json.loads((folder / "captioner.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "captioner.safetensors")
        tokenizer = Tokenizer.from_file(str(folder / "captioner-tokenizer.json"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"no captioner in {folder.name} ({type(error).__name__}); train one, or leave it out") from error
    if values.get("schema") != SCHEMA:
        raise ConfigError(f"the captioner in {folder.name} has schema {values.get('schema')}, not {SCHEMA}; train it again")
    if values["tower_sha256"] != tower_sha256:
        raise ConfigError(f"the captioner in {folder.name} was trained on the image tokens of other weights; train it for these")
    model = Captioner(CaptionerConfig.model_validate(values["config"]))
    model.load_state_dict(weights)
    return model.eval(), tokenizer, Decoding.model_validate(values["decoding"])
