"""The command that serves the viewer, with its settings; imports no Streamlit, so that asking for it costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from medvl.errors import ConfigError

ADDRESS = "127.0.0.1"
LONGEST_NAME = 64
MODES = ("local", "users", "oidc")
SETTINGS: dict[str, str | tuple[str, ...]] = {
    "server.enableXsrfProtection": "true",
    "server.enableCORS": "true",
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
    "server.maxUploadSize": "1",
    "server.maxMessageSize": "64",
    "server.enableAgentApi": "false",
    "server.enableStaticServing": "false",
    "server.showEmailPrompt": "false",
    "logger.hideWelcomeMessage": "true",
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": "false",
    "client.toolbarMode": "minimal",
    "theme.base": "dark",
    "theme.primaryColor": "#4fb3d9",
    "theme.backgroundColor": "#0b0d10",
    "theme.secondaryBackgroundColor": "#151a20",
    "theme.textColor": "#d7dde3",
    "theme.borderColor": "#2a323b",
    "theme.baseRadius": "4px",
    "theme.baseFontSize": "14",
}


@dataclass(frozen=True)
class Door:
    """How users reach the viewer and are known.

    Args:
        host: address to listen on.
        names: host names under which users ask for it, besides its own address.
        mode: local, users or oidc.
        users: YAML file of users, for the latter two.
        user: name of the one user of local mode.
        idle_minutes: a session ends after so long without use.
        longest_hours: and at this age.
        cert, key: PEM files; without them plain http is served.
        plain: plain http to other machines is wished.
        secrets: Streamlit's file with the OIDC client.
    """

    host: str = ADDRESS
    names: tuple[str, ...] = ()
    mode: str = "local"
    users: Path | None = None
    user: str = ""
    idle_minutes: float = 15.0
    longest_hours: float = 12.0
    cert: Path | None = None
    key: Path | None = None
    plain: bool = False
    secrets: Path | None = None

    def checked(self) -> Door:
        """The same.

        Raises:
            ConfigError: nobody would be safe behind it; the message says why and what to do.
        """
        if self.mode not in MODES:
            raise ConfigError(f"--auth is {', '.join(MODES)}, not {self.mode!r}")
        if len(self.user) > LONGEST_NAME or not self.user.isprintable():
            raise ConfigError(f"--user is a name of {LONGEST_NAME} printable characters at most")
        if self.mode == "local" and not (_loopback(self.host) and all(map(_loopback, self.names))):
            raise ConfigError(
                "without sign-in the viewer serves this machine only, since whoever reaches it could see every study and sign in "
                "your name; give --auth users --users FILE, or --auth oidc"
            )
        if self.mode != "local" and self.users is None:
            raise ConfigError(f"--auth {self.mode} needs --users FILE; make one with: medvl view --add-user NAME --users FILE")
        if (self.cert is None) != (self.key is None):
            raise ConfigError("--tls-cert and --tls-key go together")
        if not _loopback(self.host) and self.cert is None and not self.plain:
            raise ConfigError(
                "over plain http everybody on the network could read images and passwords; give --tls-cert and --tls-key, put a "
                "proxy with TLS on this machine, or say --allow-plain inside a closed network"
            )
        if self.host in ("", "0.0.0.0", "::") and not self.names:  # noqa: S104 - refused here
            raise ConfigError(
                "say under which name users ask for the viewer, with --name HOST; requests under others are refused"
            )
        if self.idle_minutes <= 0 or self.longest_hours <= 0:
            raise ConfigError("--idle-minutes is more than 0")
        return self

    @property
    def allowed(self) -> tuple[str, ...]:
        """Host names that the viewer answers to."""
        own = () if self.host in ("", "0.0.0.0", "::") else (self.host,)  # noqa: S104 - compared, not bound
        return tuple(dict.fromkeys((*own, *self.names, ADDRESS, "localhost")))

    @property
    def address(self) -> str:
        """What a browser on this machine asks for."""
        return f"{'https' if self.cert else 'http'}://{self.names[0] if self.names else self.host}"

    def settings(self) -> dict[str, str | tuple[str, ...]]:
        """Of Streamlit's server."""
        told: dict[str, str | tuple[str, ...]] = {"server.address": self.host, "server.allowedHosts": self.allowed}
        if self.cert and self.key:
            told |= {"server.sslCertFile": str(self.cert.resolve()), "server.sslKeyFile": str(self.key.resolve())}
        if self.secrets:
            told["secrets.files"] = (str(self.secrets.resolve()),)
        return told

    def options(self) -> list[str]:
        """Arguments of the serving process, which `opened` reads."""
        minutes = ["--idle-minutes", str(self.idle_minutes), "--longest-hours", str(self.longest_hours)]
        users = self.users.resolve() if self.users else None
        given = [part for name, value in (("--users", users), ("--user", self.user)) if value for part in (name, str(value))]
        hosts = [part for name in self.allowed for part in ("--name", name)]
        secure = ["--secure"] if self.cert or any(not _loopback(name) for name in self.names if _loopback(self.host)) else []
        return ["--auth", self.mode, *minutes, *given, *hosts, *secure]


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def command(results: Path, *, port: int, open_browser: bool, extras: Sequence[str] = (), door: Door | None = None) -> list[str]:
    """Arguments of the process that serves `results` until it is stopped.

    Args:
        results: what `medvl infer` wrote.
        port: to listen on.
        open_browser: whether Streamlit opens one.
        extras: of `medvl_ui.extras.options`.
        door: who may reach it; this machine without sign-in when left out.
    """
    door = (door or Door()).checked()
    settings = SETTINGS | door.settings() | {"server.port": str(port), "server.headless": str(not open_browser).lower()}
    page = Path(__file__).with_name("viewer_server.py")
    options: list[str] = []
    for name, value in settings.items():
        for item in (value,) if isinstance(value, str) else value:
            options += [f"--{name}", item]
    line = [sys.executable, "-m", "streamlit", "run", str(page), *options, "--", str(results.resolve())]
    return [*line, *door.options(), *extras]
