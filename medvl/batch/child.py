"""A process that reads what nobody vouches for: it may hang, eat memory or die, and is killed and replaced without loss.

Started as ``python -m medvl.batch.child``; it speaks `wire` on its standard streams: one greeting, then one answer a job.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvl.batch import wire
from medvl.batch.last_found import KEPT, LastFound
from medvl.data.identity import keyed_id
from medvl.errors import InputError
from medvl.files import private
from medvl.imaging.load import Entry, Loaded, Study, load
from medvl.inference.answers import RegionResult
from medvl.inference.failure import failure
from medvl.inference.regions import Preparer
from medvl.inference.results import series_record
from medvl.models.bundle import Bundle, open_bundle
from medvl.models.localiser import Place
from medvl.text.prompts import load_findings

if TYPE_CHECKING:
    from pydicom import Dataset

    from medvl.network.access import Access

Arrays = list[NDArray[Any]]


class Child:
    """What a child process keeps between jobs.

    Args:
        greeting: `bundle` folder, `key` of the results folder and `patient_key` of the site (hex), `given` places, `memory_mb`,
            `access` to a PACS, and how to `deidentify` objects (key and options), if at all.
    """

    def __init__(self, greeting: dict[str, Any]) -> None:
        self.key = bytes.fromhex(greeting["key"])
        self._patient_key = bytes.fromhex(greeting.get("patient_key") or "")
        self._access = greeting.get("access") or {}
        self._deidentify = greeting.get("deidentify")
        self._folder = Path(greeting["bundle"])
        self._given = {n: Place(np.array(c), p) for n, (c, p) in (greeting.get("given") or {}).items()}
        self._bundle: Bundle | None = None
        self._preparer: Preparer | None = None
        self._last = LastFound()

    @property
    def access(self) -> Access:
        """How to log in to the PACS."""
        from medvl.network.access import Access

        files = {name: Path(self._access[name]) for name in ("ca_bundle", "client_cert") if self._access.get(name)}
        return Access(**{**self._access, **files})

    @property
    def bundle(self) -> Bundle:
        """Opened at first use."""
        if self._bundle is None:
            self._bundle = open_bundle(self._folder)
        return self._bundle

    @property
    def prepare(self) -> Preparer:
        """Loaded at first use."""
        if self._preparer is None:
            self._preparer = Preparer(self.bundle, self._given)
        return self._preparer

    def find(self, job: dict[str, Any]) -> tuple[dict[str, Any], Arrays]:
        """The studies of one input, judged from headers."""
        loaded = load(Path(job["path"]))
        if not len(loaded):
            raise _nothing(loaded)
        found = [_found(study, Path(job["path"]), self.key, self._patient_key) for study in loaded]
        for study, told in list(zip(loaded, found, strict=True))[:KEPT]:  # which are read first
            if "series" in told:
                self._last.keep(told["source"]["path"], study.entries[0])
        return {"studies": found}, []

    def read(self, job: dict[str, Any]) -> tuple[dict[str, Any], Arrays]:
        """One study, from its place to the grids of its regions."""
        started = time.perf_counter()
        source = job["source"]
        if "dicomweb" in source:
            source = self._fetch(job)
        entry = self._last.take(source["path"], source["names"]) or _entry(source)
        fetched = time.perf_counter()
        volume = entry.read()
        read = time.perf_counter()
        prepared = self.prepare(volume, age_years=entry.age_years)
        arrays = [r.hu for r in prepared.regions.values() if r.hu is not None]
        series = job.get("series") or series_record(entry, self.key, self._patient_key)
        timings = {"find": round(fetched - started, 4), "read": round(read - fetched, 4), **prepared.timings_s}
        text = {
            "source": source,
            "series": series,
            "reasons": [[r["code"], r["message"]] for r in series["reasons"]],  # files looked at alone tell less
            "age_years": prepared.age_years,
            "regions": [_region(r) for r in prepared.regions.values()],
            "pixels": _sha256(volume.hu),
            "timings": timings,
        }
        return text, arrays

    def _fetch(self, job: dict[str, Any]) -> dict[str, Any]:
        """Bring a study from a PACS into the spool and choose its series; from then on it is a folder like any other."""
        from medvl.network.address import WebAddress, parse
        from medvl.network.dicomweb import DicomWeb

        source, folder = job["source"], Path(job["spool"])
        private(folder.parent)
        private(folder)
        address = parse(source["dicomweb"], allow_plain=True)  # refused before, where it is not allowed
        assert isinstance(address, WebAddress)  # noqa: S101 - only these are queried
        with DicomWeb(address, self.access) as web:
            n_files = web.fetch(source["study_uid"], folder, max_bytes=job["study_bytes"])
        if not n_files:
            raise InputError("no_images", "the PACS holds no CT images of this study")
        loaded = load(folder)
        best = loaded.chosen
        if best is None:
            raise _nothing(loaded) if not len(loaded) else _unusable(loaded.studies[0])
        self._last.keep(str(folder), best)
        return {
            **source,
            "path": str(folder),
            "names": list(best.names),
            "shape": list(best.shape_dhw or ()),
            "series_key": best.key,
        }

    def _there(self, job: dict[str, Any]) -> dict[str, Any]:
        """The source of a study that was read before, fetched again where its images are gone.

        Raises:
            InputError: of the PACS, or the study there has another series to use by now.
        """
        source = job["source"]
        if "dicomweb" not in source or ("path" in source and Path(source["path"]).is_dir()):
            return dict(source)
        source = self._fetch(job)
        if keyed_id(self.key, source["series_key"]) != job["series"]["key"]:
            raise InputError("input_changed", "the study changed in the PACS since it was read; run again")
        return source

    def objects(self, job: dict[str, Any]) -> tuple[dict[str, Any], Arrays]:
        """DICOM objects of one finished study."""
        from medvl.delivery.objects import make_objects

        entry, study = _entry(self._there(job)), Path(job["study"])
        made_at = datetime.fromisoformat(json.loads((study / "findings.json").read_text(encoding="utf-8"))["made_at"])
        findings = load_findings(self.bundle.text("findings.yaml"))
        headers = self._anonymous(entry)
        made = make_objects(
            study, entry, Path(job["out"]), kinds=job["kinds"], made_at=made_at, findings=findings, headers=headers
        )
        return {"objects": [{**vars(m), "path": m.path.name} for m in made]}, []

    def _anonymous(self, entry: Entry) -> list[Dataset] | None:
        """Headers without identity for the objects to refer to; None where identity is to stay.

        Raises:
            InputError: the images themselves may show who it is.
        """
        if self._deidentify is None or entry.series is None:
            return None
        from medvl.delivery.burned_in import burned_in
        from medvl.delivery.deidentify import Deidentifier, Deidentify
        from medvl.delivery.source import headers_of, quiet

        deidentifier = Deidentifier(bytes.fromhex(self._deidentify["key"]), Deidentify(**self._deidentify["options"]))
        with quiet():
            headers = headers_of(entry.series)
            for header in headers:
                if (reason := burned_in(header)) is not None:
                    raise InputError(reason.code, reason.message)
            return [deidentifier.header(header) for header in headers]


def _nothing(loaded: Loaded) -> InputError:
    codes = Counter(r.reason.code for r in loaded.rejected)
    if set(codes) == {"unreadable_file"}:
        return InputError("unreadable_file", "nothing of the input can be read; check its permissions, and the share it lies on")
    what = ", ".join(f"{n} {code}" for code, n in sorted(codes.items())) or "no files"
    return InputError("no_images", f"the input holds no CT images ({what}); see `medvl inspect`")


def _unusable(study: Study) -> InputError:
    codes = ", ".join(sorted({r.code for entry in study.entries for r in entry.reasons[:1]})) or "no images"
    return InputError("no_volume", f"the study holds no CT volume ({codes}); see `medvl inspect`")


def _found(study: Study, path: Path, key: bytes, patient_key: bytes) -> dict[str, Any]:
    """One study of an input: what tells it from others, where its images lie, and the record of the series to use."""
    first = study.entries[0] if study.entries else None
    place = first.path if first is not None else None
    found: dict[str, Any] = {"identity": study.key if place is None else f"file:{place.resolve()}"}
    if study.chosen is None or first is None:
        error = _unusable(study)
        return {**found, "source": {"path": str(path.resolve())}, "reason": error.code, "message": error.message}
    where = path if place is None else place
    record = series_record(first, key, patient_key)
    frames = first.series.frames if first.series is not None else ()
    sizes = sorted({f.item: f.item.size for f in frames}.values()) or [where.stat().st_size]
    images = {name: value for name, value in record.items() if name not in ("patient", "person")}  # older results told neither
    told = hashlib.sha256(repr((images, sizes)).encode()).hexdigest()
    return {**found, "source": _place(first, where), "series": record, "fingerprint": told}


def _place(entry: Entry, where: Path) -> dict[str, Any]:
    """How to find a series again."""
    return {
        "path": str(where.resolve()),
        "names": list(entry.names),
        "shape": list(entry.shape_dhw or ()),
        "series_key": entry.key,
    }


def _entry(source: dict[str, Any]) -> Entry:
    """The series to use, from its own files alone.

    Raises:
        InputError: the files changed since they were found.
    """
    best = load(Path(source["path"]), names=source["names"] or None, verified=True).chosen
    if best is None or list(best.shape_dhw or ()) != source["shape"]:
        raise InputError("input_changed", "the files of this study changed since they were found; run again")
    return best


def _region(region: RegionResult) -> dict[str, Any]:
    grid, place = region.geometry, region.place
    return {
        "name": region.name,
        "place": None if place is None else [[float(c) for c in place.center_lps], float(place.confidence)],
        "source": region.source,
        "shape": None if grid is None else list(grid.shape_dhw),
        "affine": None if grid is None else grid.affine_lps.tolist(),
        "covered": region.covered,
        "reasons": [[r.code, r.message] for r in region.reasons],
        "hu": region.hu is not None,
    }


def _sha256(hu: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(hu).data.cast("B")).hexdigest()


def _bound(memory_mb: int) -> None:
    """May take so much more than now; the kernel, when it must kill, takes this process first."""
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + (memory_mb << 20),) * 2)
    Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def answer(child: Child, job: dict[str, Any]) -> tuple[dict[str, Any], Arrays]:
    """What becomes of a job; errors are part of the answer."""
    try:
        text, arrays = {"find": child.find, "read": child.read, "objects": child.objects}[job["op"]](job)
    except InputError as error:
        return {"error": [error.code, error.message], "kind": "input"}, []
    except Exception as error:
        if _out_of_memory(error):
            return {"error": ["memory_budget", "it needs more memory than a study may take; see --memory"], "kind": "memory"}, []
        if job["op"] == "read" and "spool" in job:
            shutil.rmtree(job["spool"], ignore_errors=True)
        told = failure(error)
        return {"error": [told.code, told.message], "kind": "failure"}, []
    return text, arrays


def _out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, in Python, in torch or in a thread that could not start."""
    told = str(error)
    refused = isinstance(error, RuntimeError | OSError) and any(w in told for w in ("allocate memory", "start new thread"))
    return isinstance(error, MemoryError) or refused


def main() -> None:
    """Answer jobs until the stream ends."""
    taken, given = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints must not get between the messages
    try:
        greeting, _ = wire.receive(taken)
        child = Child(greeting)
        if sys.platform == "linux" and greeting.get("memory_mb"):
            import torch  # noqa: F401 - so that the bound is on top of it

            _bound(int(greeting["memory_mb"]))
        while True:
            job, _ = wire.receive(taken)
            text, arrays = answer(child, job)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            wire.send(given, {**text, "peak_mb": peak}, arrays)
    except (wire.Broken, KeyboardInterrupt):
        return


if __name__ == "__main__":
    main()
