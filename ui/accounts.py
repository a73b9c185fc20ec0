"""Who may use the viewer: a YAML file of names, roles and hashed passwords, readable by its owner only."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from enum import StrEnum
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medvl.errors import ConfigError
from medvl.files import replace_text

FORMAT: Literal["medvl.users/1"] = "medvl.users/1"
SHORTEST_PASSWORD, LONGEST_PASSWORD, LONGEST_NAME = 12, 1024, 64
_N, _R, _P = 2**15, 8, 3  # scrypt as OWASP advises: 32 MiB, three rounds
_NAME = rf"^[\w][\w .@+-]{{0,{LONGEST_NAME - 1}}}$"


class Role(StrEnum):
    """What somebody may do; each may also do what those before it may."""

    reader = "reader"
    reviewer = "reviewer"
    admin = "admin"

    def covers(self, other: Role) -> bool:
        """Whether this role may do what `other` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


class Account(BaseModel):
    """One user. Without a password the account opens by OIDC only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=_NAME)
    role: Role
    password: str = Field(default="", repr=False)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["medvl.users/1"] = Field(default=FORMAT, alias="schema")
    claim: str = "email"
    users: list[Account] = []


class Accounts:
    """The users of one file; a change of it counts from the next look on.

    Args:
        path: the file.

    Raises:
        ConfigError: it is missing, others may read it, or it is not a list of users.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._known: dict[str, Account] = {}
        self._claim = "email"
        self.get("")

    def get(self, name: str) -> Account | None:
        """The account of that name.

        Raises:
            ConfigError: the file is no longer as it must be.
        """
        told = self.path.stat() if self.path.exists() else None
        stamp = (told.st_mtime_ns, told.st_mode) if told else None
        if stamp is None or stamp != self._stamp:
            file = _read(self.path)
            self._known, self._claim, self._stamp = {user.name: user for user in file.users}, file.claim, stamp
        return self._known.get(name)

    @property
    def claim(self) -> str:
        """The claim of an OIDC identity that holds the name."""
        return self._claim

    def everybody(self) -> list[Account]:
        """All accounts by name."""
        self.get("")
        return sorted(self._known.values(), key=lambda user: user.name)


def _read(path: Path) -> _File:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"others may read {path.name}; take that away with: chmod 600 {path.name}")
        file = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except FileNotFoundError:
        raise ConfigError(f"no such users file: {path.name}; make one with: medvl view --add-user NAME --users FILE") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path.name} is no list of users: {where}: {first['msg']}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path.name} cannot be read as a list of users ({type(error).__name__})") from None
    names = [user.name for user in file.users]
    if len(set(names)) < len(names):
        raise ConfigError(f"{path.name} names a user twice; take one away")
    return file


def put(path: Path, name: str, role: Role, password: str = "") -> None:
    """Add a user or change one, in one move; the file is made with mode 0600.

    Raises:
        ConfigError: the name or the password will not do, or the file is not as it must be.
    """
    if password and not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ConfigError(f"a password has {SHORTEST_PASSWORD} characters or more, {LONGEST_PASSWORD} at most")
    try:
        account = Account(name=name, role=role, password=hashed(password) if password else "")
    except ValidationError:
        raise ConfigError(
            f"a user's name has letters, digits, space and . @ + - _ only, {LONGEST_NAME} characters at most"
        ) from None
    file = _read(path) if path.exists() else _File()
    _write(path, file, [*(user for user in file.users if user.name != name), account])


def remove(path: Path, name: str) -> None:
    """Take a user away; sessions of that user end with it.

    Raises:
        ConfigError: there is no such user.
    """
    file = _read(path)
    left = [user for user in file.users if user.name != name]
    if len(left) == len(file.users):
        raise ConfigError(f"{path.name} has no user of that name; known: {', '.join(user.name for user in file.users)}")
    _write(path, file, left)


def _write(path: Path, file: _File, users: list[Account]) -> None:
    entries = [user.model_dump(mode="json", exclude_defaults=True) for user in sorted(users, key=lambda user: user.name)]
    content = {"schema": FORMAT, "claim": file.claim, "users": entries}
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True), mode=0o600)


def hashed(password: str) -> str:
    """``scrypt$N$r$p$salt$hash`` (RFC 7914), salt and hash in base64."""
    salt = secrets.token_bytes(16)
    parts = (base64.b64encode(value).decode() for value in (salt, _scrypt(password, salt, _N, _R, _P)))
    return "$".join(("scrypt", str(_N), str(_R), str(_P), *parts))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=32)


_NOBODY = "$".join(
    ("scrypt", str(_N), str(_R), str(_P), base64.b64encode(os.urandom(16)).decode(), base64.b64encode(bytes(32)).decode())
)


def opens(account: Account | None, password: str) -> bool:
    """Whether the password is the account's; takes as long for an account that is not there."""
    stored = account.password if account and account.password else _NOBODY
    kind, *rest = stored.split("$")
    if kind != "scrypt" or len(rest) != 5 or len(password) > LONGEST_PASSWORD:
        return False
    n, r, p = (int(number) for number in rest[:3])
    salt, expected = (base64.b64decode(value) for value in rest[3:])
    same = hmac.compare_digest(_scrypt(password, salt, n, r, p), expected)
    return same and stored is not _NOBODY
