"""A small contrastive task with an attribute head, for tests of the loop: two towers, label targets, two groups of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medvl.training.task import Part, Plan, Task

WIDTH, SEEN = 12, 40


class Toy(Task):
    """Images and texts as vectors; texts that share a label count as matches. Sizes are odd, so no split is even."""

    def __init__(self, *, norm: str = "layer", dropout: float = 0.0, batch: int = 11, statements: int = 5, seed: int = 3) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(seed)
        self.images = torch.randn(SEEN, WIDTH, generator=made)
        self.texts = self.images @ torch.randn(WIDTH, WIDTH, generator=made)
        self.labels = (self.images[:, 0] > 0).long() + 2 * (self.images[:, 1] > 0).long()
        self.batch, self.statements, self.seed = batch, statements, seed
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            between = nn.LayerNorm(16) if norm == "layer" else nn.BatchNorm1d(16)
            self.image = nn.Sequential(nn.Linear(WIDTH, 16), between, nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 8))
            self.text = nn.Sequential(nn.Linear(WIDTH, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 8))
            self.head, self.frozen = nn.Linear(8, 4), nn.Linear(3, 3)
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def plan(self, step: int) -> Plan:
        made = torch.Generator().manual_seed(self.seed * 1000 + step)
        rows = torch.randperm(SEEN, generator=made)[: self.batch]
        said = torch.randperm(SEEN, generator=made)[: self.statements]
        return Plan(step, {"samples": self.batch, "statements": self.statements}, {"rows": rows, "said": said})

    def load(self, plan: Plan, part: Part) -> dict[str, Tensor]:
        rows = plan.drawn["rows"][torch.from_numpy(part["samples"])]
        said = plan.drawn["said"][torch.from_numpy(part["statements"])]
        return {"image": self.images[rows], "text": self.texts[rows], "label": self.labels[rows], "said": self.texts[said]}

    def represent(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pooled = self.image(inputs["image"])
        found = {"pooled": pooled, "label": inputs["label"]}
        found["image"] = functional.normalize(pooled.float(), dim=-1)
        for name in ("text", "said"):
            found[name] = functional.normalize(self.text(inputs[name]).float(), dim=-1)
        return found

    def compare(self, found: Mapping[str, Tensor], plan: Plan) -> tuple[Tensor, dict[str, float]]:
        logits = self.log_scale.exp() * found["image"] @ torch.cat([found["text"], found["said"]]).T
        labels = found["label"]
        labels = torch.cat([labels, self.labels[plan.drawn["said"]].to(labels.device)])
        targets = (found["label"][:, None] == labels[None]).float()
        match = functional.cross_entropy(logits, targets / targets.sum(1, keepdim=True))
        head = functional.cross_entropy(self.head(found["pooled"]).float(), found["label"])
        return match + 0.5 * head, {"match": float(match.detach()), "head": float(head.detach())}

    def groups(self) -> Sequence[tuple[Sequence[nn.Parameter], float]]:
        towers = [*self.image.parameters(), *self.text.parameters(), self.log_scale]
        return [(towers, 1.0), (list(self.head.parameters()), 2.0)]

    def validate(self) -> dict[str, float]:
        found = self.head(self.image(self.images.to(self.log_scale.device)))
        return {"accuracy": float((found.argmax(1).cpu() == self.labels).float().mean())}


def no_progress(*_: Any) -> None:
    """Tell nobody."""


class Stopped(Exception):  # noqa: N818
    """Raised where a test cuts a run off."""


def stop_at(step: int) -> Any:
    """A progress callback that cuts the run off after a step."""

    def told(done: int, *_: Any) -> None:
        if done == step:
            raise Stopped

    return told
