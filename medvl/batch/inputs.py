"""What a run is pointed at: paths, a list of them, or a query to a PACS."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medvl.batch.ledger import Case
from medvl.dicom.scan import short_hash
from medvl.errors import ConfigError, InputError
from medvl.network.access import Access
from medvl.network.address import WebAddress, is_address, parse
from medvl.network.dicomweb import DicomWeb
from medvl.network.errors import retryable

_LISTS = (".csv", ".tsv", ".txt")
Input = Path | WebAddress


@dataclass(frozen=True)
class Found:
    """A study that a query found, before it is fetched."""

    identity: str
    case: Case


def inputs_of(given: Sequence[str], *, allow_plain: bool = False) -> list[Input]:
    """Paths and addresses as a person gave them; a ``.csv``, ``.tsv`` or ``.txt`` file is a list of more.

    Args:
        given: folders, files, zips, DICOMweb addresses, lists.
        allow_plain: let DICOMweb run over plain http to other machines.

    Raises:
        ConfigError: a list without a `path` column, an address that cannot be used, or one that only takes images.
    """
    found: list[Input] = []
    for text in given:
        path = Path(text)
        if not is_address(text) and path.suffix.lower() in _LISTS and path.is_file():
            found += inputs_of(list(_listed(path)), allow_plain=allow_plain)
        else:
            found.append(_one(text, allow_plain))
    return found


def _one(text: str, allow_plain: bool) -> Input:
    if not is_address(text):
        return Path(text)
    address = parse(text, allow_plain=allow_plain)
    if not isinstance(address, WebAddress):
        raise ConfigError("images are queried by dicomweb+https://...; a dicom:// address can only be sent to (--send)")
    return address


def _listed(path: Path) -> Iterator[str]:
    """The entries of a list: column `path` of a table, or a line each; relative ones lie beside the list."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".txt":
        rows = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    else:
        reader = csv.DictReader(text.splitlines(), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        if "path" not in (reader.fieldnames or ()):
            told = ", ".join(reader.fieldnames or ()) or "none"
            raise ConfigError(f"a list of studies needs a column called path; its columns are {told}")
        rows = [row["path"].strip() for row in reader if (row["path"] or "").strip()]
    for row in rows:
        if Path(row).suffix.lower() in _LISTS:
            raise ConfigError("a list of studies holds the name of another list; put the studies into one")
        yield row if is_address(row) else str(path.parent / row)


def queried(address: WebAddress, access: Access) -> Iterator[Found]:
    """The studies that a PACS finds, each to be fetched when its turn comes.

    Raises:
        InputError: ``pacs_unreachable`` or ``pacs_refused``.
    """
    with DicomWeb(address, access) as web:
        for study in web.studies():
            source = {"dicomweb": f"dicomweb+{address.url}", "study_uid": study.study_uid}
            yield Found(short_hash(study.study_uid), Case("", source, fingerprint=_print(web, study.study_uid)))


def _print(web: DicomWeb, study_uid: str) -> str | None:
    """Of the study's images alone, so that results stored in it change nothing; None where the PACS tells nothing of them."""
    try:
        return hashlib.sha256(repr(web.series(study_uid)).encode()).hexdigest()
    except InputError as error:
        if retryable(error):
            raise
        return None  # fetching it tells why
