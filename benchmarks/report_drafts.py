"""Report drafts on held-out phantoms: a small captioner and retrieval-grounded drafting beside three baselines.

The captioner learns on image tokens of the bundle's frozen tower, read once from crops around true centres; drafts are compared
with the test patients' reports by our own extractor. What is done is kept under --out, so a second run only prints.

    python benchmarks/report_drafts.py --bundle configs/bundles/phantom-demo --out runs/drafts
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn import functional

from medvl.data.cohort import Cohort, PhantomCohort, build_phantom, open_cohort
from medvl.evaluation.factuality import Factuality, factuality
from medvl.evaluation.text_overlap import overlap
from medvl.heads.draft_compose import captioned_draft, grounded_draft
from medvl.heads.draft_library import ReportLibrary
from medvl.heads.draft_tokens import TokenCache, cache_tokens
from medvl.heads.draft_train import CaptionTraining, captions, load_captioner, save_captioner, shapes, train_captioner
from medvl.heads.draft_verdicts import verdicts_of_margins
from medvl.heads.drafts import Draft, title
from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle
from medvl.models.captioner import Captioner
from medvl.models.decoding import Decoding, decode_text, generate

STARTS = {"train": 0, "validation": 100000, "test": 200000}
SEED = 11
Texts = list[dict[str, str]]


def main(arguments: list[str] | None = None) -> None:
    """Train, draft, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("configs/bundles/phantom-demo"))
    parser.add_argument("--out", type=Path, default=Path("runs/drafts"))
    parser.add_argument("--built", type=int, nargs=3, default=[6000, 500, 300], help="patients in each cohort folder")
    parser.add_argument("--used", type=int, nargs=3, default=[4000, 300, 300], help="patients used of train, validation, test")
    parser.add_argument("--grid", type=int, default=4, help="image tokens a side")
    parser.add_argument("--seconds", type=float, default=150, help="CPU time of the captioner's training")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    predictor = Predictor(open_bundle(options.bundle))
    cohorts, caches = read(options, predictor)
    captioner(options, predictor, cohorts, caches)
    drafts, references, patients = draft(options, predictor, cohorts, caches)
    print(report(drafts, references, patients, options.draws))
    examples(options.out, drafts, references, patients)


def read(options: argparse.Namespace, predictor: Predictor) -> tuple[dict[str, Cohort], dict[str, TokenCache]]:
    """Cohorts and their tokens."""
    cohorts, caches = {}, {}
    for (name, start), built, used in zip(STARTS.items(), options.built, options.used, strict=True):
        wanted = PhantomCohort(SEED, start, built)
        place = options.out / wanted.key(predictor.contract)
        there = (place / "cohort.json").exists()
        whole = open_cohort(place) if there else build_phantom(options.out, wanted, predictor.contract)
        cohorts[name] = replace(whole, hu=whole.hu[:used], covered=whole.covered[:used], cases=whole.cases[:used])
        caches[name] = cache_tokens(
            predictor.clip, cohorts[name], predictor.contract, predictor.kinds, options.out / "tokens", grid=options.grid
        )
        print(f"{name}: {used} patients, {len(caches[name])} regions, {caches[name].tokens.nbytes / 1e6:.0f} MB", file=sys.stderr)
    return cohorts, caches


def captioner(
    options: argparse.Namespace, predictor: Predictor, cohorts: Mapping[str, Cohort], caches: Mapping[str, TokenCache]
) -> None:
    """Train it, unless it is there."""
    if (options.out / "captioner" / "captioner.json").exists():
        return
    tokenizer = predictor.clip.text.tokenizer
    size = {"width": options.width, "layers": options.layers, "feed": 3 * options.width, "dropout": 0.0}
    config = shapes(caches["train"], predictor.contract.names, tokenizer, **size)
    train, held = (captions(caches[name], cohorts[name], tokenizer, config.max_length) for name in ("train", "validation"))
    how = CaptionTraining(steps=options.steps, batch=options.batch, learning_rate=options.learning_rate, seconds=options.seconds)

    def told(step: int, loss: float, validation: float) -> None:
        print(f"step {step}: training {loss:.3f}, validation {validation:.3f} nats a token", file=sys.stderr, flush=True)

    model, _ = train_captioner(config, train, held, how, told)
    print(f"captioner: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", file=sys.stderr)
    save_captioner(options.out / "captioner", model, tokenizer, tower_hash(predictor), how, Decoding())


def tower_hash(predictor: Predictor) -> str:
    """SHA-256 of the bundle's weights."""
    return str(predictor.bundle.manifest["files"]["weights.safetensors"])


@torch.no_grad()
def embeddings(predictor: Predictor, cohort: Cohort, cache: TokenCache) -> NDArray[np.float32]:
    """(N, E) unit image embeddings of the cached regions."""
    number = {name: k for k, names in enumerate(predictor.kinds.values()) for name in names}
    kind = torch.tensor([number[cohort.regions[c]] for c in cache.columns])
    found = functional.normalize(predictor.clip.project(torch.from_numpy(cache.pooled), kind), dim=-1)
    return np.asarray(found.numpy(), dtype=np.float32)


def library(predictor: Predictor, cohort: Cohort, cache: TokenCache) -> ReportLibrary:
    """The training regions' texts."""
    rows = [
        (cohort.cases[r]["patient_id"], cohort.regions[c], cohort.cases[r]["region_texts"][cohort.regions[c]])
        for r, c in zip(cache.rows, cache.columns, strict=True)
    ]
    told = [row for row in rows if row[2]]
    ids, regions, texts = (tuple(column) for column in zip(*told, strict=True))
    return ReportLibrary(predictor.embed_texts(list(texts)).numpy(), ids, regions, texts)


def draft(
    options: argparse.Namespace, predictor: Predictor, cohorts: Mapping[str, Cohort], caches: Mapping[str, TokenCache]
) -> tuple[dict[str, list[Draft | dict[str, str]]], Texts, list[str]]:
    """Method to a draft of each test patient, their reports, and who they are."""
    test, cache, known = cohorts["test"], caches["test"], library(predictor, cohorts["train"], caches["train"])
    model, tokenizer, _ = load_captioner(options.out / "captioner", tower_hash(predictor))
    vectors = embeddings(predictor, test, cache)
    said_of = [write(model, tokenizer, cache, how) for how in (Decoding(beams=1), Decoding())]
    rng = np.random.default_rng(0)
    normal = {
        r: Counter(t for t, of in zip(known.texts, known.regions, strict=True) if of == r).most_common(1)[0][0]
        for r in test.regions
    }
    drafts: dict[str, list[Draft | dict[str, str]]] = {}
    references, patients = [], []
    for row in np.unique(cache.rows):
        mine = {test.regions[c]: k for k, c in enumerate(cache.columns) if cache.rows[k] == row}
        said = test.cases[row]["region_texts"]
        references.append({region: said[region] for region in mine})
        patients.append(test.cases[row]["patient_id"])
        images = {region: torch.from_numpy(vectors[k]) for region, k in mine.items()}
        verdicts = verdicts_of_margins(
            predictor.findings,
            predictor.kinds,
            predictor.calibration,
            list(mine),
            lambda finding, region, images=images: predictor.margin(finding, region, images[region]),
        )

        at_random = {r: known.texts[rng.choice([k for k, of in enumerate(known.regions) if of == r])] for r in mine}
        nearest = {r: known.texts[known.nearest(images[r], r, 1)[0][0]] for r in mine}
        greedy, beam = (Draft(captioned_draft(verdicts, {r: told[k] for r, k in mine.items()})) for told in said_of)
        checked = Draft(captioned_draft(verdicts, {r: (t, 0.0) for r, t in nearest.items()}, "retrieved"))
        for name, value in (
            ("most frequent training text", {r: normal[r] for r in mine}),
            ("random training report", at_random),
            ("nearest training report as it is", nearest),
            ("nearest training report, unsupported sentences left out", checked),
            ("captioner, greedy", greedy),
            ("captioner, 3 beams", beam),
            ("captioner, 3 beams, unsupported sentences left out", Draft(beam.sentences)),
            ("verdicts as templates", Draft(grounded_draft(verdicts))),
            ("retrieval-grounded", Draft(grounded_draft(verdicts, known, images))),
        ):
            drafts.setdefault(name, []).append(value)
    return drafts, references, patients


def write(model: Captioner, tokenizer: Tokenizer, cache: TokenCache, how: Decoding, batch: int = 64) -> list[tuple[str, float]]:
    """The captioner's text of every cached region, with the mean log probability of its tokens."""
    told = []
    for start in range(0, len(cache), batch):
        inputs = cache.batch(np.arange(start, min(start + batch, len(cache))))
        told += [(decode_text(tokenizer, ids), score) for ids, score in generate(model, *inputs, how)]
    return told


def texts_of(name: str, rows: Sequence[Draft | dict[str, str]]) -> Texts:
    """Each draft as region to text."""
    only = name.endswith("left out")
    return [row.regions(supported_only=only) if isinstance(row, Draft) else row for row in rows]


def joined(rows: Texts) -> list[str]:
    """Each as one text."""
    return [" ".join(row.values()) for row in rows]


def report(drafts: Mapping[str, list[Draft | dict[str, str]]], references: Texts, patients: list[str], draws: int) -> str:
    """The table, and the differences from the nearest report."""
    measured: dict[str, Factuality] = {}
    columns = ["presence micro", "presence macro", "side micro", "trait micro", "size micro", "contradicted"]
    lines = ["| draft | " + " | ".join([*columns, "BLEU-4", "ROUGE-L"]) + " |", "|---" * (len(columns) + 3) + "|"]
    for name, rows in drafts.items():
        texts = texts_of(name, rows)
        measured[name] = factuality(texts, references, patients)
        scores = {**measured[name].scores(draws=draws), **overlap(joined(texts), joined(references), patients, draws=draws)}
        cells = [told(scores[c], 1 if c == "BLEU-4" else 3) for c in (*columns, "BLEU-4", "ROUGE-L")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    base = measured["nearest training report as it is"]
    for name in ("captioner, 3 beams", "retrieval-grounded"):
        less = measured[name].less(base, draws=draws)
        lines.append(f"\n{name} less nearest report, paired: " + "; ".join(f"{c} {told(less[c])}" for c in columns))
    support = Counter(s.support for d in drafts["captioner, 3 beams"] if isinstance(d, Draft) for s in d.sentences)
    source = Counter(s.source for d in drafts["retrieval-grounded"] if isinstance(d, Draft) for s in d.sentences)
    grounded = texts_of("", drafts["retrieval-grounded"])
    left_open = sum(text.count("cannot be decided") for row in grounded for text in row.values())
    lines.append(f"\n{len(patients)} patients; sentences of the captioner: {dict(support)}; of retrieval: {dict(source)}")
    lines.append(f"of these {left_open} on what is undecided")
    return "\n".join(lines)


def told(value: tuple[float, float, float], digits: int = 3) -> str:
    """A value with its interval."""
    return "none stated" if np.isnan(value[0]) else f"{value[0]:.{digits}f} ({value[1]:.{digits}f} to {value[2]:.{digits}f})"


def examples(out: Path, drafts: Mapping[str, list[Draft | dict[str, str]]], references: Texts, patients: list[str]) -> None:
    """Every test patient's drafts beside the report, to read."""
    rows = []
    for k, patient in enumerate(patients):
        pair = {n: drafts[n][k] for n in ("captioner, 3 beams", "retrieval-grounded")}
        told = {n: d.as_dict() for n, d in pair.items() if isinstance(d, Draft)}
        rows.append({"patient_id": patient, "report": {title(r): t for r, t in references[k].items()}, **told})
    (out / "examples.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
