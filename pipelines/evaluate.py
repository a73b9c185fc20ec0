"""`medvl evaluate`: a protocol on a bundle, as tables on the screen, and as a results file and a report for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .built_in import bundle_folder, protocol_file
from .console import emit_json, err, say, table, warn

if TYPE_CHECKING:
    from medvl.evaluation.embedded import Embedded
    from medvl.evaluation.protocol import Protocol
    from medvl.evaluation.report.document import Document
    from medvl.evaluation.results import Subject
    from medvl.models.bundle import Bundle

EXIT_LEAK = 5


def run(
    bundle: str,
    *,
    protocol: str,
    embedded: Path | None = None,
    against: str | None = None,
    training: Sequence[Path] = (),
    out: Path | None = None,
    draws: int | None = None,
    limit: int | None = None,
    as_json: bool = False,
) -> int:
    """Exit code 0 after telling the results, 5 when a case of the cohort is in a training split too.

    Args:
        bundle: what is evaluated.
        protocol: name of a built-in protocol, or a YAML file.
        embedded: what `medvl embed` wrote; None embeds the bundle's own phantoms.
        against: a second bundle, whose phantoms are embedded now, or BUNDLE=FOLDER with what `medvl embed` made of it.
        training: embedded folders of other splits, to look for leaks in.
        out: folder for `results.json`, `report.md`, `report.html` and figures.
        draws: instead of the protocol's.
        limit: of phantoms that are embedded here.
        as_json: print the results file instead of tables.

    Raises:
        ConfigError: the protocol, a folder or a bundle is not usable, or they do not fit one another.
    """
    from medvl.evaluation.protocol import load_protocol

    wanted = load_protocol(protocol_file(protocol), {} if draws is None else {"draws": draws})
    with err().status("loading"):
        from medvl.evaluation.embedded import Embedded
        from medvl.evaluation.results import Beside, evaluate

        opened = _opened(bundle)
        read = Embedded.load(embedded) if embedded else None
        known = {_split_name(path, found): found for path in training for found in (Embedded.load(path),)}
    read = _embed(opened, wanted, limit) if read is None else read
    subject = subject_of(opened, read)
    second = _second(against, wanted, limit) if against else None
    with err().status("measuring"):
        told = evaluate(wanted, subject, Beside(second, known))
    if out is not None and embedded is None:
        read.save(out / "embedded")
    from medvl.evaluation.report.build import document

    return publish(told, document(told), out, as_json=as_json)


def publish(told: Mapping[str, Any], report: Document, out: Path | None, *, as_json: bool) -> int:
    """Tell a record and its report, write both where there is a folder; exit code 5 for a leak, else 0."""
    from medvl.evaluation.results import write_results

    if out is not None:
        write_results(told, out / "results.json")
        _write_report(report, out)
    if as_json:
        emit_json(told)
    else:
        _show(report)
        if out is not None:
            say(f"Written: {out / 'report.html'}, {out / 'report.md'}, {out / 'results.json'}")
    for line in told["warnings"]:
        warn(f"medvl: {line}")
    return EXIT_LEAK if told["leaks"]["found"] else 0


def _opened(bundle: str) -> Bundle:
    from medvl.models.bundle import open_bundle

    return open_bundle(bundle_folder(bundle))


def subject_of(bundle: Bundle, read: Embedded) -> Subject:
    """A bundle's model beside the cohort as it sees it."""
    from medvl.evaluation.calibration import Calibration
    from medvl.evaluation.results import Subject
    from medvl.evaluation.tasks import Model
    from medvl.survival.model import SurvivalModel
    from medvl.text.prompts import load_findings

    survival = SurvivalModel.from_json(bundle.values("survival.json")) if "survival.json" in bundle.manifest["files"] else None
    calibrations = {key: Calibration(**values) for key, values in bundle.values("calibration.json").items()}
    return Subject(Model(bundle.name, bundle.sha256, load_findings(bundle.text("findings.yaml")), calibrations, survival), read)


def _embed(bundle: Bundle, wanted: Protocol, limit: int | None) -> Embedded:
    """The bundle's own phantoms, scanned and read as the protocol's split."""
    from medvl.inference.predictor import Predictor

    from .embed import of_phantoms

    return of_phantoms(Predictor(bundle), wanted.split, limit=limit)


def _second(against: str, wanted: Protocol, limit: int | None) -> Subject:
    """A bundle, its phantoms embedded now; or BUNDLE=FOLDER, embedded before.

    Raises:
        ConfigError: neither.
    """
    from medvl.evaluation.embedded import Embedded

    name, sign, folder = against.partition("=")
    bundle = _opened(name)
    return subject_of(bundle, Embedded.load(Path(folder)) if sign else _embed(bundle, wanted, limit))


def _split_name(path: Path, found: Embedded) -> str:
    return f"{found.source.get('split', path.name)} ({found.source.get('cohort', path.name)})"


def _write_report(report: Document, out: Path) -> None:
    from medvl.evaluation.report.html import write_html
    from medvl.evaluation.report.markdown import write_markdown

    write_markdown(report, out)
    write_html(report, out / "report.html")


def _show(report: Document) -> None:
    """Every table of the report, without its figures."""
    from medvl.evaluation.report.document import Table

    say(report.title)
    say(report.lead)
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Table):
                table(block.columns, block.rows, title=f"{section.title}. {block.caption}")


def list_protocols() -> int:
    """Name the built-in protocols."""
    from .built_in import protocols

    for name, summary in protocols().items():
        say(f"{name}: {summary}")
    return 0
