"""A DICOMweb service (PS3.18): find studies by QIDO-RS, fetch them by WADO-RS, store results by STOW-RS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from dicomweb_client.web import DICOMwebClient
from requests.auth import HTTPBasicAuth

from medvl.network.access import Access
from medvl.network.address import WebAddress
from medvl.network.dicomjson import count, text, texts
from medvl.network.errors import Stored, hush, is_uid, refused, told, unreachable
from medvl.network.fetched import Fetched
from medvl.network.multipart import CHUNK, Event, Upload, boundary_of, media_type, parts
from medvl.network.stow import answer_of, uids_of

PAGE = 200
STUDY_UID, SERIES_UID, SOP_UID = "0020000D", "0020000E", "00080018"
MODALITY, MODALITIES, N_OF_STUDY, N_OF_SERIES = "00080060", "00080061", "00201208", "00201209"
# Pixels as they are stored: nothing is decoded or coded again on the way.
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@dataclass(frozen=True)
class FoundStudy:
    """A study that the filters of an address match.

    Args:
        study_uid: Study Instance UID as the PACS says it; not shown.
        n_instances: of all its series; None when the PACS does not say.
        modalities: of its series; empty when the PACS does not say.
    """

    study_uid: str = field(repr=False)
    n_instances: int | None
    modalities: tuple[str, ...]


class DicomWeb:
    """One service; give each thread its own.

    Args:
        address: of the service, with the filters for `studies`.
        access: login and certificates.
        timeout_s: longest wait for a connection, and between two pieces of an answer.
        limit_s: longest time for all images of one series, so that a PACS that drips cannot hold a run.

    Every method raises InputError ``pacs_unreachable`` (see `medvl.network.errors.retryable`) or ``pacs_refused``.
    """

    def __init__(
        self, address: WebAddress, access: Access | None = None, timeout_s: float = 30.0, limit_s: float = 3600.0
    ) -> None:
        hush()
        self.address, self._timeout_s, self._limit_s = address, timeout_s, limit_s
        self._session = _session(access or Access())
        self._client = DICOMwebClient(address.url, session=self._session, timeout=timeout_s, chunk_size=CHUNK)
        self._client.set_http_retry_params(retry=False)

    def __repr__(self) -> str:
        return f"DicomWeb({self.address.shown})"

    def __enter__(self) -> DicomWeb:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def echo(self) -> float:
        """Ask for one study; gives the seconds until the answer, which tells address, network, TLS and login are right."""
        start = time.perf_counter()
        with told("asking for one study"):
            self._found(self._client.search_for_studies(limit=1))
        return time.perf_counter() - start

    def studies(self) -> Iterator[FoundStudy]:
        """The studies that match the address, page by page, each once."""
        filters = self.address.query()
        fuzzy = filters.pop("fuzzymatching", "")
        more = {"fuzzymatching": fuzzy} if fuzzy else None

        def search(offset: int, limit: int) -> Any:
            fields = ["ModalitiesInStudy", "NumberOfStudyRelatedInstances"]
            return self._client.search_for_studies(
                search_filters=filters, fields=fields, limit=limit, offset=offset, additional_params=more
            )

        for item in self._all(search, STUDY_UID, "searching for studies"):
            yield FoundStudy(text(item, STUDY_UID), count(item, N_OF_STUDY), texts(item, MODALITIES))

    def series(self, study_uid: str, modality: str = "CT") -> list[tuple[str, int | None]]:
        """UID and number of instances of the study's series of one modality, in the order of their UIDs."""
        if not is_uid(study_uid):
            raise refused("the study has no valid Study Instance UID; correct it in the PACS")

        def search(offset: int, limit: int) -> Any:
            return self._client.search_for_series(
                study_uid,
                search_filters={"Modality": modality},
                fields=["Modality", "NumberOfSeriesRelatedInstances"],
                limit=limit,
                offset=offset,
            )

        found = [
            (text(item, SERIES_UID), count(item, N_OF_SERIES))
            for item in self._all(search, SERIES_UID, "searching for series")
            if text(item, MODALITY) == modality
        ]
        if not all(is_uid(uid) for uid, _ in found):
            raise refused("a series of the study has no valid Series Instance UID; correct it in the PACS")
        return sorted(found)

    def fetch(self, study_uid: str, folder: Path, *, max_bytes: int, modality: str = "CT") -> int:
        """Write the study's images of one modality to `folder` as 000001.dcm, 000002.dcm..., byte for byte as stored.

        What an interrupted call left is used: whole series are not fetched again.

        Args:
            study_uid: as found.
            folder: made when absent; must hold nothing else and be used by one call at a time.
            max_bytes: stop when the images take more.
            modality: of the series to fetch.

        Returns:
            The number of files; 0 when the study has no series of the modality.

        Raises:
            InputError: also ``too_large``.
            OSError: the folder cannot be written to.
        """
        wanted = self.series(study_uid, modality)
        fetched = Fetched(folder, dict(wanted), max_bytes)
        for uid, expected in wanted:
            if not fetched.has(uid):
                with closing(fetched):
                    self._retrieve(study_uid, uid, fetched)
                fetched.finish(uid, expected)
        return fetched.n_files

    def store(self, files: Sequence[Path]) -> list[Stored]:
        """Store the objects of one study in one request; an answer per file in order. What was there already counts as stored."""
        uids = [uids_of(path) for path in files]
        if not uids:
            return []
        body = Upload(files)
        headers = {"Content-Type": body.content_type, "Accept": "application/dicom+json"}
        with told("storing results"):
            response = self._session.post(f"{self.address.url}/studies", data=body, headers=headers, timeout=self._timeout_s)
            answer = answer_of(response)
        stored = [answer.of(uid) for _, uid in uids]
        return [
            Stored(uid, True, already=True) if not one.stored and not one.retryable and self.has(study, uid) else one
            for one, (study, uid) in zip(stored, uids, strict=True)
        ]

    def has(self, study_uid: str, sop_uid: str) -> bool:
        """True when the PACS lists the object in the study."""
        if not (is_uid(study_uid) and is_uid(sop_uid)):
            return False
        with told("looking for an object"):
            try:
                found = self._client.search_for_instances(study_uid, search_filters={"SOPInstanceUID": sop_uid}, limit=2)
            except requests.exceptions.HTTPError as error:
                if error.response is not None and error.response.status_code == 404:
                    return False
                raise
        return any(text(item, SOP_UID) == sop_uid for item in self._found(found))

    def _all(self, search: Callable[[int, int], Any], key: str, doing: str) -> Iterator[dict[str, Any]]:
        """All pages of a search, each match once.

        Servers give fewer than asked, shift while new studies arrive, ignore the offset, or (Orthanc 1.10 with a filter) count
        those skipped in the limit: so an empty page ends the search only when a limit that covers the skipped ones finds none.
        """
        seen: set[str] = set()
        while True:
            new: dict[str, dict[str, Any]] = {}
            for limit in (PAGE, len(seen) + PAGE):
                with told(doing):
                    page = self._found(search(len(seen), limit))
                new = {text(item, key): item for item in page if text(item, key) not in seen}
                if new:
                    break
            if not new:
                return
            seen.update(new)
            yield from new.values()

    def _found(self, answer: Any) -> list[dict[str, Any]]:
        """The matches of a search, checked to be objects."""
        if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
            raise refused("the PACS did not answer a search in DICOM JSON; check the path of the address")
        return answer

    def _retrieve(self, study_uid: str, series_uid: str, fetched: Fetched) -> None:
        """Stream one series into files."""
        end = time.monotonic() + self._limit_s
        url = f"{self.address.url}/studies/{study_uid}/series/{series_uid}"
        with (
            told("fetching images"),
            self._session.get(url, headers={"Accept": _ACCEPT}, stream=True, timeout=self._timeout_s) as response,
        ):
            response.raise_for_status()
            for kind, data in _events(response):
                if time.monotonic() > end:
                    raise unreachable(f"the PACS took more than {self._limit_s:.0f} s for one series; allow more time")
                fetched.take(kind, data)


def _session(access: Access) -> requests.Session:
    """A session that trusts and tells only what `access` says: no proxies, passwords or certificates of the environment."""
    session = _OwnHost()
    session.trust_env = False
    session.max_redirects = 0
    if access.user:
        session.auth = HTTPBasicAuth(access.user.encode(), access.password.encode())
    elif access.token:
        session.headers["Authorization"] = f"Bearer {access.token}"
    session.verify = access.verify if not access.verify or access.ca_bundle is None else str(access.ca_bundle)
    session.cert = None if access.client_cert is None else str(access.client_cert)
    return session


class _OwnHost(requests.Session):
    """Drops the Host header of dicomweb-client, which lacks the port and is wrong for IPv6."""

    def request(self, method: str, url: str | bytes, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """As for any session."""
        headers = {key: value for key, value in (kwargs.pop("headers", None) or {}).items() if key != "Host"}
        return super().request(method, url, headers=headers, **kwargs)


def _events(response: requests.Response) -> Iterator[Event]:
    """The files in an answer to WADO-RS, whether wrapped, as they should be, or one bare."""
    if response.status_code == 204:
        return
    content_type = response.headers.get("Content-Type", "")
    chunks = response.iter_content(CHUNK)
    boundary = boundary_of(content_type)
    if boundary is not None:
        yield from parts(chunks, boundary)
    elif media_type(content_type) == "application/dicom":
        yield "start", b""
        yield from (("data", chunk) for chunk in chunks)
        yield "end", b""
    else:
        raise refused("the PACS did not send DICOM files for a series; check the path of the address")
