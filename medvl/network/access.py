"""Who we are to a PACS: credentials and certificates, kept out of addresses, logs and reprs."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from medvl.errors import ConfigError

VARIABLES = {
    "user": "MEDVL_DICOMWEB_USER",
    "password": "MEDVL_DICOMWEB_PASSWORD",
    "token": "MEDVL_DICOMWEB_TOKEN",
}
_FILES = ("ca_bundle", "client_cert")


@dataclass(frozen=True, repr=False)
class Access:
    """How to log in, and whom to trust. Without arguments: nobody, and the usual certificate authorities.

    Args:
        user, password: for HTTP basic authentication.
        token: for bearer authentication, instead of both.
        ca_bundle: PEM file of the authorities to trust instead of the usual ones.
        client_cert: PEM file with our certificate and its key, where the server asks for one.
        verify: False accepts any certificate; for a test bench only.

    Raises:
        ConfigError: half a login, two logins, a token with a line break, or a file that is not there.
    """

    user: str = ""
    password: str = field(default="")
    token: str = field(default="")
    ca_bundle: Path | None = None
    client_cert: Path | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        if bool(self.user) != bool(self.password):
            raise ConfigError("a user needs a password and a password a user; set both, or neither")
        if self.user and self.token:
            raise ConfigError("give a user with a password or a token, not both")
        if ":" in self.user or not self.token.isascii():
            raise ConfigError("a user holds no colon and a token is plain ASCII; check which value went where")
        if any(not char.isprintable() for char in self.user + self.password + self.token):
            raise ConfigError("the credentials hold a line break or another control character; set them again without")
        for name in _FILES:
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise ConfigError(f"{name}: there is no such file; give the path of a PEM file")

    def __repr__(self) -> str:
        kind = "token" if self.token else "user" if self.user else "none"
        return f"Access(login={kind}, own_ca={self.ca_bundle is not None}, verify={self.verify})"

    def context(self) -> ssl.SSLContext:
        """The TLS settings for a DICOM association that we open."""
        try:
            context = ssl.create_default_context(cafile=None if self.ca_bundle is None else str(self.ca_bundle))
            if self.client_cert is not None:
                context.load_cert_chain(str(self.client_cert))
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"the certificates cannot be loaded ({type(error).__name__}); give PEM files") from None
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


def access_from(values: Mapping[str, str], file: Path | None = None, **options: Path | bool | None) -> Access:
    """Access from environment variables given as `values`, or from a private YAML `file` with `user`, `password` or `token`.

    Args:
        values: usually the process's environment; only the names in `VARIABLES` are looked at, and empty ones count as absent.
        file: takes the place of `values`; must belong to its reader alone (mode 0600 or 0400).
        **options: `ca_bundle`, `client_cert`, `verify`.

    Raises:
        ConfigError: as for `Access`, or when others can read the file or it holds anything else.
    """
    login = _login(file) if file is not None else {key: values.get(name, "") for key, name in VARIABLES.items()}
    return Access(**login, **options)  # type: ignore[arg-type]


def _login(file: Path) -> dict[str, str]:
    """The login that a private file holds."""
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError("the credentials file cannot be read; give the path of a UTF-8 file of your own") from None
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"others may read the credentials file (mode {stat.S_IMODE(mode):04o}); run chmod 600 on it")
    try:
        said = yaml.safe_load(text)
    except yaml.YAMLError:
        said = None
    if not isinstance(said, dict) or not all(key in VARIABLES and isinstance(value, str) for key, value in said.items()):
        raise ConfigError('the credentials file must hold lines such as user: "..." and password: "...", or token: "..."')
    return {str(key): str(value) for key, value in said.items()}
