"""A tower that learns from outcomes alone, as one of the ranks that torchrun starts; told by JSON: out, options, survival."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loop_toy import SEEN, Toy, no_progress
from torch import Tensor, nn

from medvl.data.targets import KindTargets, Targets
from medvl.objectives.registry import Scene, Sizes
from medvl.objectives.survival import Survival, SurvivalOptions
from medvl.training.loop import LoopOptions, fit
from medvl.training.task import Plan

BATCH = 23


class Outcomes(Toy):
    """Two samples a patient, tied days, some outcomes unknown; all deaths of a batch lie in its first third, so on one rank."""

    def __init__(self, survival: Mapping[str, Any]) -> None:
        super().__init__(batch=BATCH, statements=2)
        rng = np.random.default_rng(7)
        self.patients = torch.arange(SEEN) // 2
        days = 100.0 * rng.integers(1, 6, SEEN // 2)
        days[::9] = np.nan
        self.days = torch.tensor(days, dtype=torch.float32)[self.patients]
        self.died = (self.patients < SEEN // 6) & ~torch.isnan(self.days)
        kinds = {"kidney": KindTargets(regions=("kidney_left", "kidney_right"), binary=("mass",))}
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.objective = Survival(SurvivalOptions(**survival), Sizes(8, 8, 8, 8, kinds))

    def plan(self, step: int) -> Plan:
        """As the toy's, those who die first."""
        plan = super().plan(step)
        rows = plan.drawn["rows"]
        ordered = rows[torch.argsort(~self.died[rows], stable=True)]
        return Plan(plan.step, plan.sizes, {**plan.drawn, "rows": ordered})

    def scene(self, rows: Tensor) -> Scene:
        """What is known of the samples of those rows."""
        labels = Targets(np.full((len(rows), 1), -1, np.int8), np.zeros((len(rows), 0), np.int8), np.zeros((len(rows), 0)))
        return Scene("kidney", 0, labels, time_days=self.days[rows], event=self.died[rows], patients=self.patients[rows])

    def compare(self, found: Mapping[str, Tensor], plan: Plan) -> tuple[Tensor, dict[str, float]]:
        """The objective, and nothing else."""
        loss = self.objective({"pooled": found["pooled"]}, self.scene(plan.drawn["rows"]))
        return loss, {"survival": float(loss.detach())}

    def groups(self) -> Sequence[tuple[Sequence[nn.Parameter], float]]:
        """Tower and head."""
        return [(list(self.image.parameters()), 1.0), (list(self.objective.parameters()), 2.0)]


def main(told: dict[str, Any]) -> None:
    """Train, and say how many ranks did."""
    receipt = fit(Outcomes(told["survival"]), LoopOptions(**told["options"]), Path(told["out"]), no_progress)
    sys.stdout.write(f"ranks {receipt.world_size}\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
