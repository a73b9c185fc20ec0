"""One entry for every input: DICOM folder, file or archive, NIfTI, or volume of a dataset, as series with a verdict each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medvl.dicom import header as dcm
from medvl.dicom import read as dicom_read
from medvl.dicom.age import age_years
from medvl.dicom.choose import Want, choose
from medvl.dicom.scan import scan, short_hash
from medvl.dicom.series import Rejected, Series, Verdict
from medvl.dicom.source import is_archive
from medvl.dicom.verify import verify
from medvl.errors import InputError
from medvl.geometry import Geometry
from medvl.imaging.volume_file import SUFFIX, read_header, read_volume
from medvl.records import Reason, Volume

_NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True, eq=False)
class Entry:
    """One series or NIfTI file of a study, with its final verdict.

    Args:
        key: short stable name, free of identifiers.
        modality: as tagged; ``"NIfTI"`` for a file that does not say.
        n_files: files it came from.
        verdict: ``"volume"`` exactly when `read` succeeds.
        reasons: refusals first, then remarks.
        shape_dhw: voxels, None without images.
        geometry: grid that `read` gives, None where there is none.
        facts: plain values (scanner, kernel, phase hints...).
        why: why it was chosen or not.
        series: the DICOM behind it, None for NIfTI.
        path: the NIfTI file or cached volume behind it, None for DICOM.
    """

    key: str
    modality: str
    n_files: int
    verdict: Verdict
    reasons: tuple[Reason, ...]
    shape_dhw: tuple[int, int, int] | None
    geometry: Geometry | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    series: Series | None = field(default=None, repr=False)
    path: Path | None = field(default=None, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The files of its images as their source calls them; may hold identifiers, never log them."""
        return tuple(dict.fromkeys(f.item.name for f in self.series.frames)) if self.series else ()

    @property
    def patient_number(self) -> str:
        """As the header gives it, empty where it does not; an identifier: never log it, keep only hashes of it."""
        return dcm.text(self.series.frames[0].tags, 0x00100020) if self.series and self.series.frames else ""

    @property
    def age_years(self) -> float | None:
        """The patient's age at the study as the DICOM header tells it, None where it does not. No fact: never log it."""
        return age_years(self.series.frames[0].tags) if self.series and self.series.frames else None

    def read(self) -> Volume:
        """The volume in HU.

        Raises:
            InputError: the code of the first reason when the entry is refused, or of what happened to the files since.
        """
        if self.verdict != "volume":
            raise InputError(self.reasons[0].code, self.reasons[0].message)
        if self.series is not None:
            return dicom_read.read(self.series)
        if self.path is not None and self.path.suffix == SUFFIX:
            return read_volume(self.path)
        from medvl.imaging.nifti import read_nifti  # brings nibabel, which DICOM does not need

        assert self.path is not None  # noqa: S101 - one of the two is there
        return read_nifti(self.path)


@dataclass(frozen=True, eq=False)
class Study:
    """Entries that belong together, best first.

    Args:
        key: short stable name, free of identifiers.
        entries: all of them, the chosen one first, refused ones last.
        chosen: key of the entry to use, None when none is a volume.
    """

    key: str
    entries: tuple[Entry, ...]
    chosen: str | None

    def read(self) -> Volume:
        """The volume of the chosen entry.

        Raises:
            InputError: ``no_volume`` with the reasons of all entries when none is usable.
        """
        if self.chosen is None:
            codes = ", ".join(sorted({reason.code for entry in self.entries for reason in entry.reasons[:1]})) or "no images"
            raise InputError("no_volume", f"the study holds no CT volume ({codes}); see `medvl inspect`")
        return self.entries[0].read()


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a source holds. Iterating gives its studies."""

    studies: tuple[Study, ...]
    rejected: tuple[Rejected, ...] = ()

    def __iter__(self) -> Iterator[Study]:
        """The studies."""
        return iter(self.studies)

    def __len__(self) -> int:
        """How many studies."""
        return len(self.studies)

    @property
    def chosen(self) -> Entry | None:
        """The chosen entry when the source holds one usable study; of several, that of the study with the largest stack."""
        usable = [study.entries[0] for study in self.studies if study.chosen is not None]
        return max(usable, key=lambda entry: entry.shape_dhw or (0, 0, 0), default=None)


def load(source: Path, want: Want | None = None, names: Sequence[str] | None = None, *, verified: bool = False) -> Loaded:
    """Find and judge everything in `source`; volumes are read on demand with `Entry.read` or `Study.read`.

    Args:
        source: folder (nested, mixed, any file names), DICOM file, zip archive, NIfTI file, or volume of a dataset.
        want: what to prefer when a study has several volumes.
        names: look only at the files of `source` that are called so, as `Entry.names` tells them; all by default.
        verified: samples of the pixels were judged before; the headers alone make the verdict, and reading judges the pixels.

    Raises:
        InputError: ``not_found`` or ``unsafe_archive``.
    """
    if source.is_file() and source.name.lower().endswith(_NIFTI) and not is_archive(source):
        return Loaded((_nifti_study(source, source.name),))
    if source.suffix == SUFFIX and source.is_file():
        return Loaded((_cached_study(source),))
    found = scan(source, names)
    nifti = sorted(entry.path for entry in found.rejected if source.is_dir() and entry.path.lower().endswith(_NIFTI))
    by_study: dict[str, list[Series]] = {}
    for series in found.series:
        by_study.setdefault(series.study, []).append(series if verified else verify(series))
    studies = [_dicom_study(key, series, want) for key, series in by_study.items()]
    studies += [_nifti_study(source / name, name) for name in nifti]
    return Loaded(tuple(studies), tuple(entry for entry in found.rejected if entry.path not in nifti))


def _dicom_study(key: str, series: list[Series], want: Want | None) -> Study:
    choice = choose(series, want)
    entries = [
        Entry(s.key, s.modality, s.n_files, s.verdict, s.reasons, s.shape_dhw, s.geometry, s.facts, s.why, series=s)
        for s in choice.series
    ]
    return Study(key, tuple(entries), choice.key)


def _nifti_study(path: Path, name: str) -> Study:
    """A study of one NIfTI file; it is read once to judge it."""
    from medvl.imaging.nifti import read_nifti

    key = short_hash(name)
    base = Entry(key, "NIfTI", 1, "refused", (), None, None, path=path)
    try:
        volume = read_nifti(path)
    except InputError as error:
        reason = Reason(error.code, error.message)
        return Study(key, (replace(base, reasons=(reason,), why=f"refused: {error.message}"),), None)
    geometry = volume.geometry
    entry = replace(
        base,
        reasons=volume.reasons,
        shape_dhw=geometry.shape_dhw,
        geometry=geometry,
        facts=volume.facts,
        verdict="volume",
        why="the only volume",
    )
    return Study(key, (entry,), key)


def _cached_study(path: Path) -> Study:
    """A study of one cached volume, judged by its header: it was checked when it was made."""
    key = short_hash(path.name)
    try:
        header = read_header(path)
    except InputError as error:
        refusal = Reason(error.code, error.message)
        return Study(key, (Entry(key, "CT", 1, "refused", (refusal,), None, None, path=path),), None)
    grid = header.geometry
    entry = Entry(key, "CT", 1, "volume", header.reasons, grid.shape_dhw, grid, header.facts, "the only volume", path=path)
    return Study(key, (entry,), key)
