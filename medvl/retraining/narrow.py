"""The part of a bundle that answers for some kinds of region, for a place whose scans or reports hold no others.

What is kept is kept to the bit: kinds share the towers, and each has queries, projection, calibration and familiarity of its own.
Concept streams read all their concepts together, so a bundle with streams cannot be narrowed without another answer.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from medvl import __version__
from medvl.errors import BundleError, ConfigError, did_you_mean
from medvl.files import write_json
from medvl.models.bundle import Bundle, seal
from medvl.recipe import Recipe, as_plain
from medvl.retraining.plan import RECIPE_FILE, recipe_of
from medvl.text.prompts import as_yaml, load_findings

_SAME = ("tokenizer.json",)
_PROJECTIONS = re.compile(r"clip\.image_projection\.(\d+)\.(.+)")


@dataclass(frozen=True, eq=False)
class Narrowed:
    """The new bundle and what it answers no more.

    Args:
        bundle: the new one.
        findings: keys that are left out.
        survival: the survival model is left out, since it reads a region that is.
    """

    bundle: Bundle
    findings: tuple[str, ...]
    survival: bool


def narrow(bundle: Bundle, kinds: Sequence[str], out: Path, built_in: Recipe | None = None) -> Narrowed:
    """Write the part of a bundle that answers for some kinds of region to `out`.

    Args:
        bundle: whole.
        kinds: to keep.
        out: folder that is not there yet; its name becomes the bundle's.
        built_in: recipe of the bundle's name, for a bundle that holds none; with neither, the new one holds none.

    Raises:
        ConfigError: a kind that the bundle does not know, nothing left out or in, concept streams, or `out` is there.
        BundleError: the bundle holds a file that this does not know how to narrow.
    """
    part = _Part.of(bundle, kinds)
    if out.exists():
        raise ConfigError(f"{out} is there already; name a new folder for the bundle")
    strange = sorted(set(bundle.manifest["files"]) - set(_SAME) - set(_WAYS) - {RECIPE_FILE, "provenance.json"})
    if strange:
        raise BundleError(f"bundle {bundle.name} holds {strange[0]}, which cannot be narrowed; it is of another version of medvl")
    out.mkdir(parents=True)
    try:
        return _written(part, out, built_in)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


@dataclass(frozen=True, eq=False)
class _Part:
    """What is kept of a bundle: kinds by their old number, regions, and keys of findings; and the keys that are left out."""

    bundle: Bundle
    kinds: Mapping[str, int]
    regions: tuple[str, ...]
    findings: tuple[str, ...]
    gone: tuple[str, ...]

    @classmethod
    def of(cls, bundle: Bundle, kinds: Sequence[str]) -> _Part:
        known = list(bundle.kinds)
        for kind in kinds:
            if kind not in known:
                raise ConfigError(f"bundle {bundle.name} knows no kind of region {kind!r}; {did_you_mean(kind, known)}")
        kept = {kind: number for number, kind in enumerate(known) if kind in kinds}
        if len(kept) in (0, len(known)):
            raise ConfigError(f"name some of the kinds of {bundle.name} to keep, but not all: {', '.join(known)}")
        if bundle.values("model.json").get("streams") is not None:
            raise ConfigError(
                f"bundle {bundle.name} has concept streams, which read all concepts together; train a recipe with fewer kinds"
            )
        every = load_findings(bundle.text("findings.yaml"))
        findings = tuple(f.key for f in every.only(kept).findings)
        regions = tuple(region for kind in kept for region in bundle.kinds[kind])
        return cls(bundle, kept, regions, findings, tuple(f.key for f in every.findings if f.key not in findings))

    def by_finding(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key in self.findings}


def _written(part: _Part, out: Path, built_in: Recipe | None) -> Narrowed:
    bundle = part.bundle
    for file in _SAME:
        shutil.copyfile(bundle.path(file), out / file)
    for file, way in _WAYS.items():
        if file in bundle:
            way(part, out / file)
    recipe = _recipe(part, built_in)
    if recipe is not None:
        write_json(out / RECIPE_FILE, as_plain(recipe))
    before = bundle.values("provenance.json") if "provenance.json" in bundle else None
    told = {"name": bundle.name, "sha256": bundle.sha256, "kinds": list(part.kinds), "provenance": before}
    write_json(out / "provenance.json", {"software": f"medvl {__version__}", "narrowed_from": told})
    made = seal(out, out.name, f"medvl {__version__}")
    return Narrowed(made, part.gone, "survival.json" in bundle and "survival.json" not in made)


def _recipe(part: _Part, built_in: Recipe | None) -> Recipe | None:
    try:
        values = dict(as_plain(recipe_of(part.bundle, built_in)))
    except ConfigError:
        return None
    values["kinds"] = {kind: values["kinds"][kind] for kind in part.kinds}
    values["contract"] = _contract_values(values["contract"], part.regions)
    image = {**values["model"]["image"], "kinds": list(part.kinds)}
    values["model"] = {**values["model"], "image": image}
    return Recipe.model_validate(values)


def _contract_values(values: Mapping[str, Any], regions: Iterable[str]) -> dict[str, Any]:
    kept = set(regions)
    return {**values, "regions": [region for region in values["regions"] if region["name"] in kept]}


def _contract(part: _Part, out: Path) -> None:
    write_json(out, _contract_values(part.bundle.values(out.name), part.regions))


def _model(part: _Part, out: Path) -> None:
    values = part.bundle.values(out.name)
    values["clip"]["image"]["kinds"] = list(part.kinds)
    values["kinds"] = {kind: values["kinds"][kind] for kind in part.kinds}
    write_json(out, values)


def _weights(part: _Part, out: Path) -> None:
    numbers = list(part.kinds.values())
    kept: dict[str, Tensor] = {}
    for name, value in load_file(part.bundle.path(out.name)).items():
        own = _PROJECTIONS.fullmatch(name)
        if own and int(own[1]) in numbers:
            kept[f"clip.image_projection.{numbers.index(int(own[1]))}.{own[2]}"] = value
        elif not own:
            kept[name] = value[numbers].contiguous() if name == "clip.pool.queries" else value
    save_file(kept, out)


def _tensors_by(belongs: Callable[[_Part, str], bool]) -> Callable[[_Part, Path], None]:
    def write(part: _Part, out: Path) -> None:
        stored = load_file(part.bundle.path(out.name))
        save_file({name: value for name, value in stored.items() if belongs(part, name)}, out)

    return write


def _findings(part: _Part, out: Path) -> None:
    out.write_text(as_yaml(load_findings(part.bundle.text(out.name)).only(part.kinds)), encoding="utf-8")


def _calibration(part: _Part, out: Path) -> None:
    write_json(out, part.by_finding(part.bundle.values(out.name)))


def _paraphrases(part: _Part, out: Path) -> None:
    values = part.bundle.values(out.name)
    write_json(out, {**values, "limits": part.by_finding(values["limits"])})


def _metrics(part: _Part, out: Path) -> None:
    values = part.bundle.values(out.name)
    asked = {key: part.by_finding(values[key]) for key in ("validation_auroc", "carried_over") if key in values}
    write_json(out, {**values, **asked})


def _survival(part: _Part, out: Path) -> None:
    if set(part.bundle.values(out.name)["regions"]) <= set(part.regions):
        shutil.copyfile(part.bundle.path(out.name), out)


def _card(part: _Part, out: Path) -> None:
    lines = part.bundle.text(out.name).rstrip().splitlines()
    kept = [line for line in lines if not any(line.startswith(f"| {key} |") for key in part.gone)]
    title = f"# {out.parent.name}" if kept and kept[0].startswith("# ") else None
    told = (
        f"\n## Narrowed\n\nThis is the part of {part.bundle.name} ({part.bundle.sha256[:12]}) that answers for "
        f"{', '.join(part.kinds)}. Its answers are the same; those for {', '.join(sorted(part.gone))} are left out.\n"
    )
    out.write_text("\n".join([title or kept[0], *kept[1:], told]), encoding="utf-8")


_WAYS: dict[str, Callable[[_Part, Path], None]] = {
    "contract.json": _contract,
    "model.json": _model,
    "weights.safetensors": _weights,
    "findings.yaml": _findings,
    "bank.safetensors": _tensors_by(lambda part, name: name.rpartition("@")[2] in part.regions),
    "prior.safetensors": _tensors_by(lambda part, name: name in part.regions),
    "reference.safetensors": _tensors_by(lambda part, name: name in part.regions),
    "familiarity.safetensors": _tensors_by(lambda part, name: re.split(r"[./]", name)[0] in part.kinds),
    "calibration.json": _calibration,
    "paraphrases.json": _paraphrases,
    "metrics.json": _metrics,
    "survival.json": _survival,
    "README.md": _card,
}
