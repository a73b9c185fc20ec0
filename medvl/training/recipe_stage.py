"""A stage of a recipe as a task of the loop: draws samples, asks the system for what the objectives need, sums them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medvl.data.statements import Statements
from medvl.data.targets import KindTargets
from medvl.models.system import System
from medvl.objectives.registry import Objective, Scene, Sizes, build_objective, check_objective
from medvl.recipe import StageConfig
from medvl.training.batches import rows_at, to_pixels, vary
from medvl.training.samples import KindData, StatementDraw, arranged
from medvl.training.task import Part, Plan, Task

_GOLDEN = (5**0.5 - 1) / 2
_TEXT_NEEDS = {"text", "text_tokens", "text_states"}
_NO_IMAGE = _TEXT_NEEDS | {"text_mask", "statements", "statement_states"}
_CLIP_PARTS = ("image", "pool", "image_projection", "text", "text_projection")


@dataclass(frozen=True, eq=False)
class StageData:
    """What a stage draws from.

    Args:
        kinds: training samples by kind; statements: single sentences by kind.
        relations: (N, A, F) by kind, for streams; empty otherwise.
        features: cached pooled features (N, P) by kind, for stages on cached images.
        texts: cached text states (N, V, H) by kind, V versions of each report, for a text tower that does not move.
    """

    kinds: Mapping[str, KindData]
    statements: Mapping[str, Statements] = field(default_factory=dict)
    relations: Mapping[str, NDArray[np.int8]] = field(default_factory=dict)
    features: Mapping[str, Tensor] = field(default_factory=dict)
    texts: Mapping[str, Tensor] = field(default_factory=dict)


class Trained(nn.Module):
    """What a run carries from stage to stage: the system, and the objectives with parameters of their own by name."""

    def __init__(self, system: System, kinds: Mapping[str, KindTargets]) -> None:
        super().__init__()
        self.system = system
        self.objectives = nn.ModuleDict()
        self.kinds = dict(kinds)

    def objective(self, name: str, options: Mapping[str, Any]) -> Objective:
        """The objective of that name, made at first use; its options are those given now."""
        if name not in self.objectives:
            self.objectives[name] = build_objective(name, options, self.sizes())
        found = self.objectives[name]
        assert isinstance(found, Objective)  # noqa: S101 - nothing else is ever put there
        found.options = check_objective(name, options)[1]
        return found

    def sizes(self) -> Sizes:
        """Widths for objectives with layers of their own."""
        clip = self.system.clip
        return Sizes(clip.pool.width, clip.config.embed_dim, clip.image.token_dim, clip.text.width, self.kinds)


class RecipeTask(Task):
    """A stage of a recipe.

    Args:
        trained: what is trained, changed in place.
        stage: its config; seed: of the run.
        data: what it draws from.
        validation: measures for early stopping, when asked for.
    """

    def __init__(
        self,
        trained: Trained,
        stage: StageConfig,
        seed: int,
        data: StageData,
        validation: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        super().__init__()
        self.trained, self.stage, self.seed = trained, stage, seed
        self._data, self._validation = data, validation
        self._names = list(data.kinds)
        self._chosen = {name: trained.objective(name, options) for name, options in stage.objectives.items()}
        self._needs = frozenset(n for o in self._chosen.values() for n in o.needs)
        self._said = {
            name: part.sentences(
                visible_only=stage.visible_only, strip_numbers=stage.strip_numbers, report_text=stage.report_text
            )
            for name, part in data.kinds.items()
            if self._needs & _TEXT_NEEDS and not data.texts
        }
        self._equal = {name: part.duplicates(stage.report_text) for name, part in data.kinds.items()}
        self._draws = {name: StatementDraw(pool) for name, pool in data.statements.items()} if stage.statements else {}

    def plan(self, step: int) -> Plan:
        """Kinds and rows of a step, and statements beside them.

        Rounds are counted in steps. Where kinds take turns, a round of one kind leaves out the rows that fell on the others'
        steps, which are other rows each round.
        """
        counts = {name: len(part) for name, part in self._data.kinds.items() if len(part)}
        if self.stage.kinds == "together":
            most = max(counts.values())
            wanted = {n: max(2, round(self.stage.batch * c / most)) for n, c in counts.items()}
        else:
            wanted = {_turn(step, counts): self.stage.batch}
        rows = {n: rows_at(counts[n], size, self._seed("rows", n), step) for n, size in wanted.items()}
        rng = self._rng("statements", step)
        picks = {n: self._draws[n](self.stage.statements, rng) for n in wanted} if self._draws else {}
        numbers = {name: index for index, name in enumerate(self._names)}
        drawn = {
            "kind": np.concatenate([np.full(len(r), numbers[n]) for n, r in rows.items()]),
            "row": np.concatenate(list(rows.values())),
            "statement": np.concatenate([*picks.values(), np.empty(0, np.int64)]),
            "statement_kind": np.concatenate([*(np.full(len(p), numbers[n]) for n, p in picks.items()), np.empty(0, np.int64)]),
        }
        return Plan(step, {"samples": len(drawn["row"])} | ({"statements": len(drawn["statement"])} if picks else {}), drawn)

    def _seed(self, *what: str | int) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{self.stage.name}/{what}".encode()).digest()[:7], "little")

    def _rng(self, *what: str | int) -> np.random.Generator:
        return np.random.default_rng(self._seed(*what))

    def load(self, plan: Plan, part: Part) -> dict[str, Tensor]:
        """Pixels or features, kinds, texts and statements of those items."""
        places = part["samples"]
        kind, row = plan.drawn["kind"][places], plan.drawn["row"][places]
        rngs = [self._rng("sample", plan.step, int(place)) for place in places]
        inputs = {"kind": torch.from_numpy(kind.astype(np.int64))}
        inputs["seed"] = torch.tensor([int(rng.integers(2**31)) for rng in rngs], dtype=torch.int64)
        if self._needs - _NO_IMAGE:
            inputs |= self._images(plan.step, kind, row, rngs)
        if self._needs & _TEXT_NEEDS:
            inputs |= self._texts(kind, row, rngs)
        if self._draws and len(part.get("statements", ())):
            inputs |= self._statements(plan, part["statements"])
        return inputs

    def _part(self, kind: int) -> KindData:
        return self._data.kinds[self._names[kind]]

    def _images(
        self, step: int, kind: NDArray[np.int64], row: NDArray[np.int64], rngs: list[np.random.Generator]
    ) -> dict[str, Tensor]:
        if self.stage.images == "cached":
            rows = [self._data.features[self._names[k]][int(r)] for k, r in zip(kind, row, strict=True)]
            return {"features": torch.stack(rows)}
        out = []
        for k, r, rng in zip(kind, row, rngs, strict=True):
            part = self._part(int(k))
            patient = int(part.texts.rows[int(r)])  # all regions of a patient share the phase
            crop = part.crop(int(r), self._rng("phase", step, patient) if self.stage.phase == "random" else None)
            out.append(to_pixels((vary(crop, rng) if self.stage.vary else crop)[None], part.windows_hu))
        return {"pixels": torch.cat(out).contiguous(memory_format=torch.channels_last_3d)}

    def _texts(self, kind: NDArray[np.int64], row: NDArray[np.int64], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        if self._data.texts:
            states = [self._data.texts[self._names[int(k)]][int(r)] for k, r in zip(kind, row, strict=True)]
            return {"text_features": torch.stack([s[int(g.integers(len(s)))] for s, g in zip(states, rngs, strict=True)])}
        said = []
        for k, r, rng in zip(kind, row, rngs, strict=True):
            said.append(arranged(self._said[self._names[int(k)]][int(r)], rng, self.stage.drop_sentences))
        clip = self.trained.system.clip
        ids, mask = clip.tokenize(said, clip.text.max_length if "text_tokens" in self._needs else None)
        return {"ids": ids, "mask": mask}

    def _statements(self, plan: Plan, places: NDArray[np.int64]) -> dict[str, Tensor]:
        kinds, picks = plan.drawn["statement_kind"][places], plan.drawn["statement"][places]
        said = [self._data.statements[self._names[int(k)]].texts[int(i)] for k, i in zip(kinds, picks, strict=True)]
        ids, mask = self.trained.system.clip.tokenize(said)
        return {"statement_ids": ids, "statement_mask": mask}

    def represent(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the objectives need, by name."""
        return self.trained.system.represent(inputs, self._needs)

    def compare(self, found: Mapping[str, Tensor], plan: Plan) -> tuple[Tensor, dict[str, float]]:
        """Weighted sum of the objectives over the kinds in the batch, each kind by itself."""
        total, told = [], {}
        for index in np.unique(plan.drawn["kind"]):
            scene, mine = self._scene(int(index), found, plan)
            for name, objective in self._chosen.items():
                loss = objective(mine, scene)
                total.append(objective.options.weight * loss)
                told[f"{scene.kind} {name}"] = float(loss.detach())
        return torch.stack(total).sum(), told

    def _scene(self, index: int, found: Mapping[str, Tensor], plan: Plan) -> tuple[Scene, dict[str, Tensor]]:
        """What is known of the samples of one kind, and their share of what was found."""
        device = next(iter(found.values())).device
        here = np.flatnonzero(plan.drawn["kind"] == index)
        there = np.flatnonzero(plan.drawn["statement_kind"] == index)
        places = {False: torch.from_numpy(here).to(device), True: torch.from_numpy(there).to(device)}
        mine = {key: value[places[key.startswith("statement")]] for key, value in found.items()}
        if "marks" in mine:
            mine["marks"] = mine["marks"][..., self._channels(index)]
        name, part, rows = self._names[index], self._part(index), plan.drawn["row"][here]
        relations = self._data.relations.get(name)
        marks = torch.from_numpy(part.marked(rows)).to(device) if "marks" in mine and part.marks is not None else None
        said = self._data.statements[name].targets[plan.drawn["statement"][there]] if len(there) else None
        days, event = (None, None) if part.outcomes is None else (torch.from_numpy(v[rows]).to(device) for v in part.outcomes)
        scene = Scene(
            kind=name,
            index=index,
            targets=part.texts.targets[rows],
            relations=None if relations is None else torch.from_numpy(relations[rows]).to(device),
            duplicates=torch.from_numpy(self._equal[name][rows]).to(device),
            statements=said,
            marks=marks,
            generator=torch.Generator().manual_seed(self._seed("scene", plan.step, index)),
            concepts=self.trained.system.concepts(),
            time_days=days,
            event=event,
            patients=torch.from_numpy(part.texts.rows[rows].astype(np.int64)).to(device),
        )
        return scene, mine

    def _channels(self, index: int) -> slice:
        ends = np.cumsum([0, *(len(part.kind.marks) for part in self._data.kinds.values())])
        return slice(int(ends[index]), int(ends[index + 1]))

    def groups(self) -> Sequence[tuple[Sequence[nn.Parameter], float]]:
        """The parts that the stage trains, each with its factor; objectives' own parameters go with `objectives`."""
        out: list[tuple[Sequence[nn.Parameter], float]] = []
        seen: set[int] = set()
        for name, factor in self.stage.train.items():
            modules = list(self._chosen.values()) if name == "objectives" else [self.trained.system.part(name)]
            fresh = [p for module in modules for p in module.parameters() if id(p) not in seen]
            seen |= {id(p) for p in fresh}
            out.append((fresh, factor))
        return [group for group in out if group[0]]

    def train(self, mode: bool = True) -> Self:
        """As for any module, but parts that do not move stay in evaluation mode, and batch norm too where the stage says so."""
        super().train(mode)
        for name in _CLIP_PARTS:
            if name not in self.stage.train:
                self.trained.system.part(name).eval()
        if self.stage.still_statistics:
            for module in self.trained.system.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def validate(self) -> dict[str, float]:
        """The stage's validation measures."""
        return self._validation() if self._validation else {}


def _turn(step: int, counts: Mapping[str, int]) -> str:
    """The kind of a step: spread evenly over the steps, each with its share of all samples."""
    ends = np.cumsum(list(counts.values())) / sum(counts.values())
    return list(counts)[min(int(np.searchsorted(ends, (step * _GOLDEN) % 1, side="right")), len(counts) - 1)]
