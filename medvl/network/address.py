"""Where a PACS is, as a person writes it: `dicomweb+https://host/path?filters` or `dicom://AE@host:port`."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword

from medvl.errors import ConfigError, did_you_mean

_SCHEMES = ("dicomweb+https", "dicomweb+http", "dicom", "dicom+tls")
_OURS = {"limit": "medvl reads all pages itself", "offset": "medvl reads all pages itself", "includefield": "medvl asks for it"}
_COMMON = ("StudyDate", "StudyTime", "ModalitiesInStudy", "StudyDescription", "AccessionNumber", "PatientID", "fuzzymatching")
_AE = re.compile(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?")
_DAY = re.compile(r"\d{8}|today|yesterday|-(\d{1,5})d")


@dataclass(frozen=True)
class WebAddress:
    """A DICOMweb service and which of its studies are meant.

    Args:
        url: base address of the service, ``https://host[:port]/path``.
        filters: QIDO attribute to value as written, relative days included; not shown, for they may name a patient.
    """

    url: str
    filters: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """For logs: the service, and by what is filtered but not for which values."""
        return f"dicomweb+{self.url}" + (f"?{'&'.join(f'{key}=...' for key in self.filters)}" if self.filters else "")

    def query(self, today: datetime.date | None = None) -> dict[str, str]:
        """The filters as QIDO takes them: days and ranges counted from `today` become dates."""
        day = today or datetime.date.today()
        return {key: _dates(value, day) if _is_date(key) else value for key, value in self.filters.items()}


@dataclass(frozen=True)
class PeerAddress:
    """An application entity that takes C-STORE.

    Args:
        called: its AE title.
        host, port: where it listens.
        calling: our AE title.
        tls: the association runs over TLS.
    """

    called: str
    host: str
    port: int
    calling: str = "MEDVL"
    tls: bool = False

    @property
    def shown(self) -> str:
        """For logs."""
        return f"dicom{'+tls' if self.tls else ''}://{self.called}@{self.host}:{self.port}"


def is_address(text: str) -> bool:
    """True when `text` is meant as the address of a PACS rather than as a path."""
    return text.partition("://")[0].lower() in _SCHEMES and "://" in text


def parse(text: str, *, allow_plain: bool = False) -> WebAddress | PeerAddress:
    """The address that a person wrote.

    Args:
        text: ``dicomweb+https://host[:port]/path?StudyDate=-7d..&ModalitiesInStudy=CT`` or ``dicom[+tls]://CALLED@host:port?calling=US``.
        allow_plain: take `dicomweb+http` to another machine, where images and passwords travel readable.

    Raises:
        ConfigError: it cannot be used; never repeats a value, which may be a secret or name a patient.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ConfigError("the address has a host or port that cannot be read; write host:port, port 1 to 65535") from None
    if parts.scheme not in _SCHEMES:
        raise ConfigError(f"an address starts with {', '.join(f'{name}://' for name in _SCHEMES)}; this one does not")
    if not parts.hostname or parts.fragment or port == 0:
        raise ConfigError("the address lacks a host, has port 0 or has a # part; write scheme://host:port/path?filters")
    options = _options(parts)
    return (
        _peer(parts, options)
        if parts.scheme.startswith("dicom+tls") or parts.scheme == "dicom"
        else _web(parts, options, allow_plain)
    )


def _options(parts: SplitResult) -> dict[str, str]:
    """What follows the question mark."""
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=40)
    except ValueError:
        raise ConfigError("what follows ? in the address cannot be read; write ?Name=value&Name=value") from None
    if len({key for key, _ in pairs}) < len(pairs):
        raise ConfigError("the address gives one filter twice; give each once, several values separated by commas")
    return dict(pairs)


def _web(parts: SplitResult, options: dict[str, str], allow_plain: bool) -> WebAddress:
    """The address of a DICOMweb service."""
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "the address holds credentials, which would end in logs; take them out and set MEDVL_DICOMWEB_USER and "
            "MEDVL_DICOMWEB_PASSWORD, or MEDVL_DICOMWEB_TOKEN, or give a credentials file"
        )
    if parts.scheme == "dicomweb+http" and not allow_plain and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            "plain http to another machine shows images and passwords to the network; use dicomweb+https, or allow plain http"
        )
    for key, value in options.items():
        _check_filter(key, value)
    return WebAddress(
        f"{parts.scheme.removeprefix('dicomweb+')}://{parts.netloc}{parts.path.rstrip('/')}", MappingProxyType(options)
    )


def _check_filter(key: str, value: str) -> None:
    """Refuse a filter that no PACS, or not ours, would understand: many ignore what they do not know and give everything."""
    if key in _OURS:
        raise ConfigError(f"leave {key} out of the address: {_OURS[key]}")
    if key != "fuzzymatching" and _tag(key) is None:
        shown = (
            f"{key} is no DICOM attribute"
            if re.fullmatch(r"[A-Za-z]{1,40}", key)
            else "a filter of the address is no DICOM attribute"
        )
        raise ConfigError(f"{shown}; {did_you_mean(key, _COMMON)}")
    if any(not char.isprintable() for char in value):
        raise ConfigError(f"the value of {key} holds a control character; write it without")
    if _is_date(key):
        _dates(value, datetime.date(2000, 1, 1))


def _is_date(key: str) -> bool:
    """True for an attribute whose value is a date."""
    tag = _tag(key)
    return tag is not None and dictionary_has_tag(tag) and dictionary_VR(tag) == "DA"


def _tag(key: str) -> int | None:
    """The number of an attribute written as keyword or as eight hexadecimal digits, None for anything else."""
    return int(key, 16) if re.fullmatch(r"[0-9A-Fa-f]{8}", key) else tag_for_keyword(key)


def _dates(value: str, today: datetime.date) -> str:
    """A day, or a range of days open on either side, as QIDO takes it.

    Raises:
        ConfigError: it is neither.
    """
    if ".." in value:
        first, _, last = value.partition("..")
    elif re.fullmatch(r"(\d{8})?-(\d{8})?", value):
        first, _, last = value.partition("-")
    else:
        return _day(value, today)
    if not first and not last:
        raise ConfigError("a range of dates needs a first or a last day, such as -7d.. or 20240101-20240131")
    ends = [_day(end, today) if end else "" for end in (first, last)]
    if all(ends) and ends[0] > ends[1]:
        raise ConfigError("a range of dates ends before it starts; turn it round")
    return "-".join(ends)


def _day(text: str, today: datetime.date) -> str:
    """One day as YYYYMMDD."""
    found = _DAY.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        if text.isdigit():
            return datetime.date(int(text[:4]), int(text[4:6]), int(text[6:])).strftime("%Y%m%d")
        back = int(found.group(1)) if found.group(1) else int(text == "yesterday")
        return (today - datetime.timedelta(days=back)).strftime("%Y%m%d")
    except (ValueError, OverflowError):
        raise ConfigError("a date filter is no date; write 20240131, today, yesterday or -7d, or a range such as -7d..") from None


def _peer(parts: SplitResult, options: dict[str, str]) -> PeerAddress:
    """The address of an application entity."""
    called, calling = unquote(parts.username or ""), options.pop("calling", "MEDVL")
    if parts.password is not None:
        raise ConfigError("a dicom:// address takes no password; write dicom://CALLED_AE@host:port?calling=MEDVL")
    if parts.port is None or parts.path.strip("/") or options:
        raise ConfigError("a dicom:// address is dicom://CALLED_AE@host:port?calling=MEDVL, with its port and nothing else")
    for name, title in (("called", called), ("calling", calling)):
        if not is_ae_title(title):
            raise ConfigError(
                f"the {name} AE title must have 1 to 16 plain characters and no backslash; ask the PACS team for it"
            )
    return PeerAddress(called, str(parts.hostname), parts.port, calling, tls=parts.scheme == "dicom+tls")


def is_ae_title(text: str) -> bool:
    """True for 1 to 16 ASCII characters without backslash and without blanks around them."""
    return _AE.fullmatch(text) is not None


def is_loopback(host: str) -> bool:
    """True for this machine by name or number; a name is not looked up."""
    if host.lower() in ("localhost", "ip6-localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
