"""`medvl train`: run a recipe to a bundle; stages already on disk are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .built_in import findings_file, recipe_file
from .console import err, say, warn


def run(config: str, out: Path, overrides: list[str]) -> int:
    """Exit code 0 with the bundle in `OUT/bundle`.

    Raises:
        ConfigError: the recipe is wrong, or `out` holds a run of another one.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from medvl.recipe import load_recipe
    from medvl.text.prompts import load_findings

    recipe = load_recipe(recipe_file(config), overrides)
    listed = findings_file(recipe.findings)
    findings = load_findings(listed)
    from medvl.training.finish import export
    from medvl.training.run import alignment_stages, attribute_stage, localiser_stage, new_model, open_workspace, text_stage

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}"),
    )
    tasks: dict[str, object] = {}
    with Progress(*columns, console=err()) as bars:

        def progress(name: str, done: int, total: int, values: Mapping[str, float]) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total, told="")
            bars.update(tasks[name], completed=done, told="  ".join(f"{k} {v:.3f}" for k, v in list(values.items())[:4]))  # type: ignore[arg-type]
            _log(out, name, done, total, values)

        work = open_workspace(recipe, out, out / "cohorts", progress)
        model = new_model(work)
        heads = attribute_stage(work, model)
        text_stage(work, model)
        alignment_stages(work, model, heads)
        localiser = localiser_stage(work)
        warn("fitting calibration, limits and survival; writing the bundle")
        bundle = export(work, model, localiser, findings, listed.read_text(encoding="utf-8"))
    say(f"Bundle: {bundle.folder}  ({bundle.sha256[:12]})")
    say(f"Held-out table: medvl evaluate --bundle {bundle.folder}")
    return 0


def _log(out: Path, name: str, done: int, total: int, values: Mapping[str, float]) -> None:
    """Keep the curves: one JSON line every twenty steps."""
    import json

    if values and (done % 20 == 0 or done == total):
        with (out / "curves.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": name, "step": done, **{k: round(float(v), 5) for k, v in values.items()}}) + "\n")
