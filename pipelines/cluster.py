"""`medvl infer --engine ray`: the same command over the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medvl.errors import ConfigError

from .built_in import bundle_folder
from .console import warn
from .findings import prompt_cache, usable
from .station import Station, cores, device_of, options_of, readers_for, terminable

if TYPE_CHECKING:
    from medvl.batch.inputs import Input
    from medvl.batch.ray_engine import Crew
    from medvl.batch.summary import Summary


def crew_of(engine: str, workers: int | None, gpus: float | None, address: str | None) -> Crew | None:
    """Who works; None where one process on this machine does.

    Raises:
        ConfigError: an unknown engine, or options of Ray without it.
    """
    if engine not in ("local", "ray"):
        raise ConfigError(f"--engine {engine}: give local or ray")
    if engine == "local":
        if (workers, gpus, address) != (None, None, None):
            raise ConfigError("--workers, --gpus-per-worker and --ray-address need --engine ray")
        return None
    from medvl.batch.ray_engine import Crew

    return Crew(workers or 2, gpus or 0.0, address)


def work(station: Station, crew: Crew, inputs: Sequence[Input], masks: Path | None = None) -> Summary:
    """Let the crew go until every study has ended, and leave the summary in the results folder.

    Raises:
        BundleError: the bundle is not there, incomplete or altered.
        ConfigError: Ray is not installed, masks are given, or an option that cannot be used.
    """
    if masks is not None:
        raise ConfigError("--masks belongs to one study, which needs no --engine ray")
    from medvl.batch.page import write_summary
    from medvl.batch.ray_engine import Share, spread
    from medvl.models.bundle import open_bundle

    device = station.device if crew.gpus == 0 else "cuda"
    opened = open_bundle(bundle_folder(station.bundle))
    each = max(1, cores() // crew.workers)
    n_readers = station.readers or readers_for(each, "cpu" if crew.gpus == 0 else "cuda", explain=station.explain)
    share = Share(
        bundle=opened.folder.resolve(),
        out=station.out.resolve(),
        options=options_of(station, n_readers),
        findings=usable(opened, station.findings) if station.findings else None,
        device="cpu" if device == "auto" else device_of(device) if crew.address is None else device,
        bf16=station.bf16,
        cache=prompt_cache(),
        threads=max(1, each - n_readers),
    )
    n_ended = 0

    def told(case_id: str, status: str, reason: str) -> None:
        nonlocal n_ended
        n_ended += 1
        warn(f"[{n_ended}] study {case_id}: {status}{f' ({reason})' if reason else ''}")

    with terminable():
        summary = spread(share, crew, inputs, told, warn)
    write_summary(summary, station.out, opened.name)
    if summary.stopped:
        warn(f"stopped: {summary.stopped}")
    return summary
