"""`medvl draft`: a structured report draft of one study, every sentence with what it rests on. Never a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.errors import ConfigError

from .built_in import bundle_folder
from .console import emit_json, say

if TYPE_CHECKING:
    from medvl.heads.drafts import Draft, DraftSentence, Verdict
    from medvl.inference.predictor import Predictor, RegionResult


def run(
    source: Path,
    *,
    bundle: str,
    reports: Path | None = None,
    captioner: Path | None = None,
    out: Path | None = None,
    as_json: bool = False,
) -> int:
    """Print the draft, or write `draft.json` and `draft.txt` into `out`.

    A study gives sentences of like reports and, with a captioner, a second draft of its own. A result of `medvl infer` holds no
    image, so it gives template sentences only.

    Raises:
        ConfigError: a result with `reports` or `captioner`, several studies, reports embedded by another model, or a captioner
            of other weights.
        InputError: the study cannot be read.
    """
    from medvl.heads.drafts import Draft
    from medvl.models.bundle import open_bundle
    from medvl.text.prompts import load_findings

    opened = open_bundle(bundle_folder(bundle))
    record = _record(source)
    model = {"name": opened.name, "sha256": opened.sha256}
    if record is not None:
        if reports or captioner:
            raise ConfigError("a result of medvl infer holds no image to compare with reports; give the study itself")
        if record["bundle"]["sha256"] != opened.sha256:
            raise ConfigError(f"the result was made by bundle {record['bundle']['name']} with other files; give that bundle")
        from medvl.heads.draft_compose import grounded_draft
        from medvl.heads.draft_verdicts import verdicts_of_record

        found = verdicts_of_record(record, load_findings(opened.text("findings.yaml")))
        drafts = {"retrieval": Draft(grounded_draft(found), str(record["case_id"]), model)}
    else:
        from medvl.inference.predictor import Predictor

        written = captioner or (opened.folder if "captioner.json" in opened.manifest["files"] else None)
        drafts = {k: Draft(v, "", model) for k, v in _of_study(source, Predictor(opened), reports, written).items()}
    if out is not None:
        _write(out, drafts)
    if as_json:
        emit_json({name: draft.as_dict() for name, draft in drafts.items()})
    elif out is None:
        for name, draft in drafts.items():
            _print(name, draft)
    return 0


def _record(source: Path) -> dict[str, Any] | None:
    """The content of `findings.json` where `source` is one or a study's results folder."""
    path = source / "findings.json" if source.is_dir() else source
    if path.name != "findings.json" or not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _of_study(
    source: Path, predictor: Predictor, reports: Path | None, captioner: Path | None
) -> dict[str, tuple[DraftSentence, ...]]:
    from medvl.heads.draft_compose import grounded_draft
    from medvl.heads.draft_library import ReportLibrary
    from medvl.imaging.load import load

    library = None
    if reports is not None:
        from medvl.evaluation.embedded import Embedded

        known = Embedded.load(reports)
        if known.source.get("model_sha256") != predictor.bundle.sha256:
            raise ConfigError(f"the reports in {reports} were embedded by another model; embed them again with medvl embed")
        library = ReportLibrary.from_embedded(known)
    studies = load(source).studies
    if len(studies) != 1:
        raise ConfigError(f"{source.name} holds {len(studies)} studies; a draft is made of one, give its folder")
    result = predictor.predict(studies[0].read())
    verdicts = [_verdict(answer) for answer in result.findings]
    usable = {name: r for name, r in result.regions.items() if r.embedding is not None and not r.reasons}
    images = {name: r.embedding for name, r in usable.items() if r.embedding is not None}
    drafts = {"retrieval": grounded_draft(verdicts, library, images)}
    if captioner is not None:
        drafts["captioner"] = _captioned(predictor, captioner, usable, verdicts)
    return drafts


def _verdict(answer: Any) -> Verdict:
    from medvl.heads.draft_verdicts import OWN_REASONS
    from medvl.heads.drafts import Verdict

    return Verdict(
        answer.finding.key,
        answer.finding.truth,
        answer.finding.label,
        answer.region,
        answer.verdict,
        answer.score,
        tuple(r.message for r in answer.reasons),
        any(r.code not in OWN_REASONS for r in answer.reasons),
        answer.evidence.peak_lps if answer.evidence else None,
    )


def _captioned(
    predictor: Predictor, folder: Path, usable: dict[str, RegionResult], verdicts: list[Verdict]
) -> tuple[DraftSentence, ...]:
    import torch

    from medvl.heads.draft_compose import captioned_draft
    from medvl.heads.draft_tokens import read_regions
    from medvl.heads.draft_train import load_captioner
    from medvl.models.decoding import decode_text, generate

    model, tokenizer, how = load_captioner(folder, str(predictor.bundle.manifest["files"]["weights.safetensors"]))
    texts: dict[str, tuple[str, float]] = {}
    for name, region in usable.items():
        if name in model.config.regions and region.hu is not None:
            kind = torch.tensor([list(predictor.kinds).index(predictor.kind_of(name))])
            tokens, pooled = read_regions(predictor.clip, predictor.pixels(region.hu, name)[None], kind, model.config.grid)
            number = torch.tensor([model.config.regions.index(name)])
            [(ids, score)] = generate(model, torch.from_numpy(tokens).float(), torch.from_numpy(pooled), number, how)
            texts[name] = (decode_text(tokenizer, ids), score)
    return captioned_draft(verdicts, texts)


def _write(out: Path, drafts: dict[str, Draft]) -> None:
    from medvl.files import replace_text

    out.mkdir(parents=True, exist_ok=True)
    told = "\n\n".join(f"{name}\n{draft.text()}" for name, draft in drafts.items())
    replace_text(out / "draft.txt", told + "\n")
    replace_text(out / "draft.json", json.dumps({k: d.as_dict() for k, d in drafts.items()}, indent=1, allow_nan=False) + "\n")
    say(f"Draft, not reviewed: {out / 'draft.txt'}, with what each sentence rests on in {out / 'draft.json'}")


def _print(name: str, draft: Draft) -> None:
    say(draft.text())
    say(f"What each sentence rests on ({name}):")
    for number, s in enumerate(draft.sentences):
        rests = [
            s.source,
            s.support,
            _scores(s),
            *([f"says beyond the verdicts: {', '.join(s.unverified)}"] * bool(s.unverified)),
        ]
        rests += [f"against the verdict on {', '.join(s.against)}"] * bool(s.against)
        rests += [f"words of {' '.join(s.neighbours)}"] * bool(s.neighbours)
        say(f"{number}. {s.text}\n   {'; '.join(part for part in rests if part)}")


def _scores(sentence: DraftSentence) -> str:
    peaks = sentence.peaks_lps or {}
    shown = [
        f"{key} {value:.2f}" + (f" at {' '.join(f'{mm:.0f}' for mm in peaks[key])} mm" if key in peaks else "")
        for key, value in (sentence.probabilities or {}).items()
        if value is not None
    ]
    return ", ".join(shown)
