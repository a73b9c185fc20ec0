"""Fine-tuning for one task: a head on an encoder that learns with it or stays frozen, the epoch chosen on validation patients."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from medvl.errors import ConfigError
from medvl.heads.probe import class_weights
from medvl.objectives.attributes import masked_bce
from medvl.objectives.balance import Balance, balance, balanced_cross_entropy
from medvl.training.finetune_options import FineTuneConfig, build_head, epoch_rate

Rows = NDArray[np.int64]
Represent = Callable[[Rows], Tensor]


@dataclass(frozen=True)
class Epoch:
    """Mean training loss of an epoch, and the validation loss after it (NaN without validation rows)."""

    training: float
    validation: float


@dataclass(frozen=True, eq=False)
class FineTuned:
    """What came out; the encoder itself was changed in place and is left in evaluation mode.

    Args:
        head: features to logits, of classes or of each label being present.
        history: every epoch.
        epoch: number of the one kept.
    """

    head: nn.Module
    history: tuple[Epoch, ...]
    epoch: int

    @torch.no_grad()
    def logits(self, encoder: nn.Module, represent: Represent, rows: ArrayLike, batch: int = 50) -> Tensor:
        """(N, C) float32 logits of rows (N,), on the device of the features."""
        encoder.eval()
        return torch.cat([self.head(represent(part).float()) for part in _batches(np.asarray(rows, dtype=np.int64), batch)])


def finetune(
    encoder: nn.Module,
    represent: Represent,
    labels: ArrayLike,
    training: ArrayLike,
    validation: ArrayLike,
    config: FineTuneConfig,
) -> FineTuned:
    """Fit a head, and the encoder with it unless it is frozen.

    Args:
        encoder: what learns; its training flag tells `represent` whether to augment.
        represent: row numbers to (B, P) features through the encoder.
        labels: for every row number: (N,) classes, negative where unknown, or (N, C) with 1 present, 0 absent, others unknown.
        training: row numbers, such as those of `fraction_subset`.
        validation: row numbers of other patients; may be empty with `select="last"`.
        config: how.

    Raises:
        ConfigError: a class without training rows, labels that do not fit, no validation rows to select on, or a loss that is
            not finite.
    """
    table = torch.as_tensor(np.asarray(labels)).long()
    wanted = 1 if config.task == "multiclass" else 2
    if (
        table.ndim != wanted
        or (wanted == 2 and table.shape[1] != config.n_outputs)
        or (wanted == 1 and table.max() >= config.n_outputs)
    ):
        raise ConfigError(
            f"labels {tuple(table.shape)} up to {int(table.max())} do not fit {config.task} with {config.n_outputs}"
        )
    rows, held = (_known(np.asarray(part, dtype=np.int64), table) for part in (training, validation))
    if len(rows) < 2 or (config.select == "best" and not len(held)):
        raise ConfigError(f"{len(rows)} training and {len(held)} validation rows with a label; need 2 and, to select the best, 1")
    with _seeded(encoder, config.seed):
        fit = _Fit(encoder, represent, table, rows, held, config)
        history: list[Epoch] = []
        best, states = 0, fit.states()
        for number in range(config.epochs):
            history.append(fit.epoch(number))
            if config.select == "best" and history[-1].validation <= min(e.validation for e in history):
                best, states = number, fit.states()
    if config.select == "last":
        return FineTuned(fit.head, tuple(history), config.epochs - 1)
    fit.restore(states)
    return FineTuned(fit.head, tuple(history), best)


class _Fit:
    """One fine-tuning under way."""

    def __init__(
        self, encoder: nn.Module, represent: Represent, table: Tensor, rows: Rows, held: Rows, config: FineTuneConfig
    ) -> None:
        self.encoder, self.table, self.rows, self.held, self.config = encoder, table, rows, held, config
        self.goal = _Goal(table[rows], config)
        encoder.eval()
        self.read = _reader(represent, np.concatenate([rows, held]), config)
        with torch.no_grad():
            example = self.read(rows[:2])
        self.head = build_head(example.shape[1], config).to(example.device)
        learning = [*self.head.parameters()] + ([] if config.frozen else [p for p in encoder.parameters() if p.requires_grad])
        self.optimiser = torch.optim.AdamW(learning, lr=config.learning_rate, weight_decay=config.weight_decay)

    def epoch(self, number: int) -> Epoch:
        """Learn from every training row once, or from as many draws, then look at the validation rows."""
        for group in self.optimiser.param_groups:
            group["lr"] = epoch_rate(number, self.config)
        self.encoder.train(not self.config.frozen or self.config.drifting_batch_norm)
        self.head.train()
        total = 0.0
        order = self.goal.order(self.rows, np.random.default_rng([self.config.seed, number]))
        for part in _batches(order, self.config.batch):
            logits = self.head(self.read(part).float())
            loss = self.goal.training(logits, self.table[part].to(logits.device))
            if not torch.isfinite(loss):
                raise ConfigError(f"loss is {loss.item()} in epoch {number}; lower learning_rate {self.config.learning_rate}")
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            total += loss.item() * len(part)
        return Epoch(total / len(order), self._validation())

    @torch.no_grad()
    def _validation(self) -> float:
        self.encoder.eval()
        self.head.eval()
        if not len(self.held):
            return float("nan")
        logits = torch.cat([self.head(self.read(part).float()) for part in _batches(self.held, self.config.batch)])
        return float(self.goal.validation(logits, self.table[self.held].to(logits.device)))

    def states(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Copies of what may have changed."""
        fixed = self.config.frozen and not self.config.drifting_batch_norm
        return {} if fixed else copy.deepcopy(self.encoder.state_dict()), copy.deepcopy(self.head.state_dict())

    def restore(self, states: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
        """Go back to `states`."""
        if states[0]:
            self.encoder.load_state_dict(states[0])
        self.head.load_state_dict(states[1])


class _Goal:
    """What is minimised, and which rows an epoch draws."""

    def __init__(self, labels: Tensor, config: FineTuneConfig) -> None:
        self.balanced: Balance | None = None
        if config.task == "multiclass":
            self.balanced = balance(labels, config.n_outputs, config.balancing)
            expected = class_weights(labels.numpy(), config.n_outputs, config.balancing)
            self.held = Balance(self.balanced.draw, torch.as_tensor(expected).float())
            self.even = config.balancing in ("none", "loss")
        elif config.balancing not in ("none", "loss"):
            raise ConfigError(f"balancing {config.balancing} draws rows by their class, but labels overlap; use loss or none")
        else:
            self.even = True
            self.positive = _positive_weights(labels) if config.balancing == "loss" else None

    def order(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """Every row once, or as many draws by class."""
        if self.balanced is None or self.even:
            return rng.permutation(rows)
        return rng.choice(rows, len(rows), p=self.balanced.draw.numpy())

    def training(self, logits: Tensor, labels: Tensor) -> Tensor:
        """() loss of a batch."""
        if self.balanced is not None:
            return balanced_cross_entropy(logits, labels, self.balanced)
        return masked_bce(logits, labels, None if self.positive is None else self.positive.to(logits.device))

    def validation(self, logits: Tensor, labels: Tensor) -> Tensor:
        """() what training minimises on average, on rows that are not drawn by class."""
        return self.training(logits, labels) if self.balanced is None else balanced_cross_entropy(logits, labels, self.held)


def _reader(represent: Represent, rows: Rows, config: FineTuneConfig) -> Represent:
    """Features of rows: through the encoder, without gradient, or from a table made once."""
    if not config.frozen:
        return represent
    if config.drifting_batch_norm:
        return torch.no_grad()(represent)
    known = np.unique(rows)
    with torch.no_grad():
        features = torch.cat([represent(part) for part in _batches(known, config.batch)])
    return lambda wanted: features[torch.as_tensor(np.searchsorted(known, wanted), device=features.device)]


def _positive_weights(labels: Tensor) -> Tensor:
    """(C,) absent over present among what is known."""
    present, absent = ((labels == value).sum(0) for value in (1, 0))
    for k, (n1, n0) in enumerate(zip(present.tolist(), absent.tolist(), strict=True)):
        if not n1 or not n0:
            raise ConfigError(f"label {k} has {n1} present and {n0} absent training rows; leave it out or set balancing: none")
    return absent / present


def _known(rows: Rows, table: Tensor) -> Rows:
    """The rows that have any known label."""
    known = table[rows] >= 0 if table.ndim == 1 else ((table[rows] == 0) | (table[rows] == 1)).any(1)
    return np.asarray(rows[known.numpy()])


def _batches(rows: Rows, size: int) -> list[Rows]:
    """Batches of nearly equal size, so that none of one row stalls a batch normalisation."""
    return np.array_split(rows, max(1, math.ceil(len(rows) / size)))


@contextmanager
def _seeded(encoder: nn.Module, seed: int) -> Iterator[None]:
    """Draws of PyTorch follow the seed inside, and go on outside as if nothing had been drawn."""
    with torch.random.fork_rng(sorted({p.device.index for p in encoder.parameters() if p.is_cuda})):
        torch.manual_seed(seed)
        yield
