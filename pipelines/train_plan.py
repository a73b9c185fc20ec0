"""`medvl train --dry-run`: what a recipe would do, without data, weights or files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.errors import ConfigError

from .console import say

if TYPE_CHECKING:
    from medvl.recipe import Recipe, StageConfig
    from medvl.training.recipe_stage import Trained


def show_plan(recipe: Recipe, out: Path, studies: Path | None) -> int:
    """Print cohorts, sizes of the parts and the stages in order; exit code 0.

    Raises:
        ConfigError: parts, stages or the table do not fit.
    """
    from medvl.training.recipe_stage import Trained
    from medvl.training.run import new_system

    trained = Trained(new_system(recipe, _stand_in(recipe), _concepts(recipe)), recipe.kinds)
    say(f"{recipe.name}: {recipe.summary}")
    say(f"Data: {_cohorts(recipe, studies)}")
    shown = ", ".join(f"{name} {_short(n)}" for name, n in _sizes(trained).items() if n)
    say(f"Model: {_short(_count(trained.system))} parameters ({shown})")
    for number, stage in enumerate((stage for stage in recipe.stages if stage.steps), 1):
        say(f"{number}. {_told(trained, stage)}")
    localiser = (
        f"trained, {recipe.localise.steps} steps on {recipe.localise.scans} whole phantoms"
        if recipe.localise
        else f"of bundle {recipe.localiser_from}"
        if recipe.localiser_from
        else "none, so no bundle is written"
    )
    say(f"Localiser: {localiser}")
    say(f"Nothing was trained or written. Without --dry-run this goes to {out}")
    return 0


def _told(trained: Trained, stage: StageConfig) -> str:
    """One stage in a line."""
    made = [trained.objective(name, options) for name, options in stage.objectives.items()]
    modules = {name: made if name == "objectives" else [trained.system.part(name)] for name in stage.train}
    parameters = {id(p): p.numel() for found in modules.values() for module in found for p in module.parameters()}
    steps = f"up to {stage.steps}" if stage.patience else str(stage.steps)
    batch = f"{stage.accumulate} x {stage.batch}" if stage.accumulate > 1 else str(stage.batch)
    seen = stage.steps * stage.batch * stage.accumulate
    moved = ", ".join(name if factor == 1 else f"{name} (rate x {factor:g})" for name, factor in stage.train.items())
    return (
        f"{stage.name}: {steps} steps of {batch}, {seen:,} samples; {', '.join(stage.objectives)}; "
        f"trains {moved}: {_short(sum(parameters.values()))} parameters"
    )


def _cohorts(recipe: Recipe, studies: Path | None) -> str:
    if studies is not None:
        from medvl.data.table import SPLITS
        from medvl.dataset import open_studies

        cases = open_studies(studies, split_seed=recipe.seed)
        counts = {split: len(cases.of(split)) for split in SPLITS}
        for split in ("train", "validation"):
            if not counts[split]:
                raise ConfigError(f"{studies.name} has no {split} case; fill its column split")
        return f"{studies.name}, " + ", ".join(f"{n} {split}" for split, n in counts.items()) + " cases"
    cohort = recipe.cohort
    scans = f", {cohort.phases} scans each" if cohort.phases != 1 else ""
    return f"{cohort.n_train} training and {cohort.n_validation} validation phantoms of seed {cohort.seed}{scans}"


def _sizes(trained: Trained) -> dict[str, int]:
    """Parameters of each part, those that two parts share counted with the first."""
    system, seen, sizes = trained.system, set[int](), {}
    names = ("image", "pool", "image_projection", "text", "text_projection")
    parts = {name: getattr(system.clip, name) for name in names} | {"streams": system.streams, "reconstruct": system.reconstruct}
    for name, module in parts.items():
        own = {id(p): p.numel() for p in module.parameters() if id(p) not in seen} if module is not None else {}
        seen |= set(own)
        sizes[name] = sum(own.values())
    return sizes


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _short(n: int) -> str:
    return f"{n / 1e6:.2f} M" if n >= 1e5 else f"{n / 1e3:.1f} k"


def _concepts(recipe: Recipe) -> Any:
    from medvl.data.statements import ontology_of
    from medvl.text.relations import concepts

    return concepts([ontology_of(kind) for kind in recipe.kinds.values()])


def _stand_in(recipe: Recipe) -> Any:
    """A tokenizer of the size that the recipe asks for; the one that is trained may come out smaller."""
    from tokenizers import Tokenizer, models

    from medvl.models.tokenizer import SPECIALS

    words = [*SPECIALS, *(f"word{i}" for i in range(recipe.model.text.vocab_size - len(SPECIALS)))]
    return Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token=SPECIALS[1]))
