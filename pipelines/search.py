"""`medvl search`: cases of an index by free text, or like one of its cases."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.errors import ConfigError

from .built_in import bundle_folder
from .console import emit_json, err, say, table, warn

if TYPE_CHECKING:
    from medvl.retrieval.entry import Entry, Found
    from medvl.retrieval.store import Index

SHOWN = ("age_years", "sex", "phase")
LINE = 90
COSINE, TWIN = "cosines", "cosines with the text less those with its negation"


def run(
    folder: Path,
    *,
    text: str | None = None,
    bundle: str | None = None,
    like: str | None = None,
    asks: str = "image",
    among: str = "image",
    where: str = "",
    k: int = 10,
    everything: bool = False,
    literal: bool = False,
    show_text: bool = False,
    as_json: bool = False,
) -> int:
    """Exit code 0 after printing the cases, best first; none is an answer too.

    Raises:
        ConfigError: neither or both of `text` and `like`, no bundle for a text, another model's, or an unknown case or filter.
    """
    if (text is None) == (like is None):
        raise ConfigError("say what to search for: either --text with --bundle, or --like PATIENT/REGION")
    if text is not None and bundle is None:
        raise ConfigError("a text is embedded by the model that made the index; name it with --bundle")
    from medvl.retrieval.search import search, similar
    from medvl.retrieval.store import Index

    twin, whose = False, ""
    with Index.open(folder) as index:
        if text is not None and bundle is not None:
            query, twin = _embedded(text, bundle, index, literal=literal or among == "report")
            found = search(index, query, k, field=among, where=where)
        else:
            options: dict[str, Any] = {"same_patient": everything, "duplicates": everything}
            found = similar(index, like or "", k, asks=asks, field=among, where=where, **options)
            whose = "" if everything else _whose(index, like or "")
        name = index.space.model
    if where and not found.n_searched:
        warn(f"medvl: no case of the index passes the filter {where}, so nothing was compared")
    _print(found, name, show_text=show_text, as_json=as_json, twin=twin)
    if whose:
        (warn if as_json else say)(whose)
    return 0


def _whose(index: Index, like: str) -> str:
    """Which names were left out as the same patient, and whether there may be more of them."""
    from medvl.retrieval.people import people_of, person_in

    with index.reading() as view:
        row = view.row_of(like)
        entry = view.entries([row])[row]
        known = people_of(view, person_in(entry))
    names = {entry.patient, *known.same}
    rest = sum(known.untold.values()) - (entry.patient not in known.same)
    told = f"Left out: the other cases of patient {entry.patient}" + (f", under {len(names)} names" if len(names) > 1 else "")
    if not rest:
        return f"{told}."
    return f"{told}; whether any of {rest} other names is this patient too, no link tells (--patient-key of medvl ingest)."


def _embedded(text: str, bundle: str, index: Index, *, literal: bool) -> tuple[Any, bool]:
    """(E,) query of a text by a bundle, which must be the one that made the index; and whether its negation was taken off."""
    with err().status("loading the model"):
        from medvl.heads.free_text import query_of
        from medvl.inference.predictor import Predictor
        from medvl.models.bundle import open_bundle
        from medvl.retrieval.entry import Space

        opened = open_bundle(bundle_folder(bundle))
        index.space.must_be(Space(opened.name, opened.sha256, opened.contract.hash, index.space.width), "the bundle has")
        query, twin = query_of(text, Predictor(opened).embed_texts, literal=literal)
        return query.double().numpy(), twin


def _print(found: Found, model: str, *, show_text: bool, as_json: bool, twin: bool) -> None:
    counts = {"cases": found.n_cases, "searched": found.n_searched}
    if as_json:
        hits = [{"score": hit.score, **_plain(hit.entry, show_text)} for hit in found.hits]
        emit_json({"model": model, **counts, "scores": TWIN if twin else COSINE, "hits": hits})
        return
    heads = ["score", "patient", "region", *(name.removesuffix("_years") for name in SHOWN), "present"]
    rows = []
    for hit in found.hits:
        present = ", ".join(key for key, value in hit.entry.findings.items() if value == 1)
        known = ["" if (v := getattr(hit.entry, name)) is None else f"{v:g}" if isinstance(v, float) else v for name in SHOWN]
        rows.append([hit.score, hit.entry.patient, hit.entry.region, *known, present, *(_first_line(hit.entry, show_text))])
    table([*heads, *(["report"] if show_text else [])], rows)
    told = f"scores are {TWIN if twin else COSINE} of {model}, not probabilities"
    say(f"{found.n_searched} of {found.n_cases} cases searched, all exactly; {told}.")


def _first_line(entry: Entry, show_text: bool) -> list[str]:
    line = entry.report.strip().partition("\n")[0]
    return [line if len(line) <= LINE else f"{line[:LINE].rstrip()} ..."] if show_text else []


def _plain(entry: Entry, show_text: bool) -> dict[str, Any]:
    values = {name: value for name, value in asdict(entry).items() if value not in ("", None, {})}
    if not show_text:
        values.pop("report", None)
    return values
