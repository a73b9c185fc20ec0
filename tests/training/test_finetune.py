"""Fine-tuning: what balancing does to probabilities, what stays frozen, which epoch is kept, what repeats."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from medvl.errors import ConfigError
from medvl.training.finetune import FineTuned, finetune
from medvl.training.finetune_options import FineTuneConfig, build_head, epoch_rate


class _Task:
    """Pixels whose class is told by the product of two of them: no linear head can see it, an encoder can learn it."""

    def __init__(self, n: int = 240, seed: int = 0, noise: float = 0.0) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.pixels = torch.randn(n, 4, generator=rng) * 2 + 1
        centred = self.pixels[:, :2] - 1
        flipped = torch.rand(n, generator=rng) < noise
        self.labels = (((centred[:, 0] * centred[:, 1]) > 0) ^ flipped).long().numpy()
        torch.manual_seed(1)
        self.encoder = nn.Sequential(nn.Linear(4, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 6))
        self.drawn: list[np.ndarray] = []

    def represent(self, rows: np.ndarray) -> Tensor:
        if self.encoder.training:
            self.drawn.append(rows)
        return self.encoder(self.pixels[torch.as_tensor(rows)])

    def fit(self, training: Any = range(160), validation: Any = range(160, 240), **changes: Any) -> FineTuned:
        base = {"task": "multiclass", "n_outputs": 2, "learning_rate": 0.01, "warmup_epochs": 1, "epochs": 15, "batch": 40}
        return finetune(self.encoder, self.represent, self.labels, training, validation, FineTuneConfig(**(base | changes)))

    def accuracy(self, found: FineTuned, rows: Any = range(160, 240)) -> float:
        answers = found.logits(self.encoder, self.represent, rows).argmax(1).numpy()
        return float((answers == self.labels[np.array(rows)]).mean())


def test_the_encoder_learns_what_a_frozen_one_cannot_tell() -> None:
    whole, frozen = _Task(), _Task()
    assert whole.accuracy(whole.fit(epochs=30)) > 0.85
    frozen.encoder[0].weight.data *= 0.01  # all but linear, so that nothing of the product comes through
    frozen.encoder[0].bias.data += 1.0
    assert frozen.accuracy(frozen.fit(frozen=True, epochs=30)) < 0.75


@pytest.mark.parametrize("drifting", [False, True])
def test_a_frozen_encoder_stays_as_it_is_unless_its_statistics_may_drift(drifting: bool) -> None:
    task = _Task()
    before = {k: v.clone() for k, v in task.encoder.state_dict().items()}
    task.fit(frozen=True, drifting_batch_norm=drifting, select="last", epochs=3)
    changed = {k for k, v in task.encoder.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == ({"1.running_mean", "1.running_var", "1.num_batches_tracked"} if drifting else set())
    assert bool(task.drawn) == drifting
    assert not task.encoder.training
    assert all(p.grad is None for p in task.encoder.parameters())


SHARES = {"none": 0.2, "loss": 0.5, "sampler": 0.5, "double_balancing": 0.8}


@pytest.mark.parametrize("balancing", list(SHARES))
def test_balancing_sets_the_share_of_the_minority(balancing: str) -> None:
    """80 to 320 with features that tell nothing: the learned probability is the minority's share of the loss."""
    labels = np.repeat([1, 0], [80, 320])
    encoder, drawn = nn.Linear(1, 1), []

    def represent(rows: np.ndarray) -> Tensor:
        drawn.append(rows)
        return encoder(torch.zeros(len(rows), 1)) * 0

    config = FineTuneConfig(
        task="multiclass", n_outputs=2, balancing=balancing, learning_rate=0.05, epochs=40, batch=100, select="last"
    )
    found = finetune(encoder, represent, labels, range(400), [], config)
    assert float(found.logits(encoder, represent, [0]).softmax(1)[0, 1]) == pytest.approx(SHARES[balancing], abs=0.04)
    share = labels[np.concatenate(drawn)].mean()
    assert share == pytest.approx(0.5 if balancing in ("sampler", "double_balancing") else 0.2, abs=0.02)
    assert np.isnan(found.history[-1].validation)


def test_validation_is_weighed_as_training_is() -> None:
    """With double balancing and features that tell nothing, -log 0.8 on the minority and -log 0.2 on the rest, 80 to 20."""
    task = _Task(400)
    task.labels, task.pixels = np.repeat([1, 0], [80, 320]), torch.zeros(400, 4)
    found = task.fit(range(400), range(400), balancing="double_balancing", frozen=True, learning_rate=0.05, epochs=40)
    assert found.history[found.epoch].validation == pytest.approx(-0.8 * np.log(0.8) - 0.2 * np.log(0.2), abs=0.01)


@pytest.mark.parametrize(("balancing", "expected"), [("none", [0.25, 0.6]), ("loss", [0.5, 0.5])])
def test_labels_are_learned_from_what_is_known(balancing: str, expected: list[float]) -> None:
    labels = np.full((300, 2), -1)
    labels[:200, 0] = np.arange(200) % 4 == 0
    labels[100:, 1] = np.arange(200) % 5 < 3
    shown = []
    for unknown in (-1, 2):
        encoder = nn.Identity()
        table = np.where(labels == -1, unknown, labels)
        config = FineTuneConfig(
            task="multilabel", n_outputs=2, balancing=balancing, learning_rate=0.05, epochs=40, frozen=True, batch=100
        )
        found = finetune(encoder, lambda rows: torch.zeros(len(rows), 3), table, range(300), range(300), config)
        shown.append(found.logits(encoder, lambda rows: torch.zeros(len(rows), 3), [0]).sigmoid()[0])
    assert torch.equal(*shown)
    np.testing.assert_allclose(shown[0], expected, atol=0.03)


def test_rows_without_a_label_are_never_read() -> None:
    task = _Task()
    task.labels = task.labels.copy()
    task.labels[:30] = -1
    task.fit(epochs=2)
    assert set(np.concatenate(task.drawn).tolist()) == set(range(30, 160))


def test_the_best_epoch_is_kept_whole() -> None:
    task = _Task(noise=0.3)
    found = task.fit(range(60), epochs=25, learning_rate=0.03, balancing="none")
    scores = [e.validation for e in found.history]
    assert found.epoch == int(np.argmin(scores)) < 24
    logits = found.logits(task.encoder, task.represent, range(160, 240))
    again = nn.functional.cross_entropy(logits, torch.as_tensor(task.labels[160:240]))
    assert float(again) == pytest.approx(scores[found.epoch], abs=1e-5)
    assert found.history[-1].training < found.history[0].training


def test_a_seed_repeats_and_leaves_the_outside_alone() -> None:
    states, outside = [], []
    for seed in (4, 4, 5):
        task = _Task()
        torch.manual_seed(7)
        found = task.fit(seed=seed, epochs=2, balancing="sampler")
        outside.append(torch.rand(3))
        states.append(torch.cat([p.detach().flatten() for m in (found.head, task.encoder) for p in m.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    assert torch.equal(outside[0], outside[2])


def test_rates_are_those_of_the_release() -> None:
    config = FineTuneConfig(task="multiclass", n_outputs=2, learning_rate=1e-5)
    rates = [epoch_rate(e, config) for e in range(100)]
    assert rates[:3] == pytest.approx([1e-7, 2.08e-6, 4.06e-6])
    assert rates[5] == max(rates) == pytest.approx(1e-5)
    assert rates[52] == pytest.approx(1e-7 + 9.9e-6 * 0.5, rel=1e-2)
    assert rates[-1] == pytest.approx(1e-7)
    assert epoch_rate(0, config.model_copy(update={"warmup_epochs": 0, "epochs": 1})) == pytest.approx(1e-5)


def test_heads_have_the_layers_of_the_releases() -> None:
    kinds = {
        "linear": (6 * 3 + 3, [nn.Linear]),
        "batch_norm": (6 * 8 + 16 + 8 * 3 + 3, [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]),
        "layer_norm": (6 * 8 + 8 + 16 + 8 * 3 + 3, [nn.Linear, nn.LayerNorm, nn.GELU, nn.Linear]),
    }
    for name, (size, layers) in kinds.items():
        head = build_head(6, FineTuneConfig(task="multiclass", n_outputs=3, head=name, hidden=8))
        assert sum(p.numel() for p in head.parameters()) == size
        assert [type(m) for m in head.modules() if not isinstance(m, nn.Sequential)] == layers


@pytest.mark.parametrize("n", [2, 41, 81])
def test_no_batch_of_one_stalls_a_batch_norm(n: int) -> None:
    task = _Task()
    task.labels = np.arange(240) % 2
    task.fit(range(n), epochs=1, head="batch_norm")
    assert min(len(rows) for rows in task.drawn) >= 2


def test_says_what_it_cannot_do() -> None:
    task = _Task()
    for changes, message in (
        ({"n_outputs": 3}, r"class sizes are \[\d+, \d+, 0\]"),
        ({"task": "multilabel"}, r"labels \(240,\) up to 1 do not fit multilabel"),
        ({"validation": []}, "160 training and 0 validation rows"),
        ({"learning_rate": 1e30}, "lower learning_rate"),
    ):
        with pytest.raises(ConfigError, match=message):
            task.fit(**changes)
    task.labels = np.stack([task.labels, task.labels * 0], 1)
    with pytest.raises(ConfigError, match="label 1 has 0 present and 160 absent"):
        task.fit(task="multilabel")
    with pytest.raises(ConfigError, match="labels overlap"):
        task.fit(task="multilabel", balancing="sampler")
    with pytest.raises(ValidationError):
        FineTuneConfig(task="multiclass", n_outputs=2, lr=1.0)
