"""`medvl view`: serve the viewer page on a results folder, and keep the file of those who may use it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from getpass import getpass
from importlib.util import find_spec
from pathlib import Path

from medvl.errors import ConfigError
from medvl_ui.extras import LEDGER, options
from medvl_ui.launch import ADDRESS, Door, command

from .built_in import bundle_folder
from .console import say


def run(
    results: Path | None,
    *,
    port: int = 8501,
    open_browser: bool = True,
    index: Path | None = None,
    dataset: Path | None = None,
    bundle: str | None = None,
    show_text: bool = False,
    audit_key: Path | None = None,
    ledger: str | None = None,
    door: Door | None = None,
) -> int:
    """Exit code 0 once the reader has stopped the viewer with Ctrl-C.

    Raises:
        ConfigError: `results` is no folder, the port is taken, or the server stopped by itself; `index` holds no index, `dataset`
            no dataset, `bundle` is none, or nobody would be safe behind `door`.
    """
    door = (door or Door()).checked()
    if results is None:
        raise ConfigError("say what to show, with --results DIR: what medvl infer wrote")
    if not results.is_dir():
        raise ConfigError(f"no such results folder: {results}; run medvl infer first, or check the path")
    if index is not None and not (index / "cases.sqlite").is_file():
        raise ConfigError(f"no index in {index}; build it with medvl index build")
    if dataset is not None and not (dataset / "dataset.json").is_file():
        raise ConfigError(f"no finished dataset in {dataset}; give the folder of medvl ingest that the index was made from")
    if ledger is not None and not ledger.startswith("postgresql://"):
        raise ConfigError("--ledger is the address of a server, postgresql://...; one in the results folder is found by itself")
    named = bundle_folder(bundle) if bundle else None
    given = options(index, named, show_text=show_text, audit_key=audit_key, dataset=dataset)
    _checked(door)
    if _taken(door.host, port):
        raise ConfigError(f"port {port} is in use; choose another with --port {port + 1}")
    say(f"Viewer at {door.address}:{port}  (Ctrl-C stops it)")
    line = command(results, port=port, open_browser=open_browser, extras=given, door=door)
    process = subprocess.Popen(line, env=os.environ | ({LEDGER: ledger} if ledger else {}))
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever stops this command stops the server with it
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        return 0
    if code:
        raise ConfigError(f"the viewer stopped with code {code}; its own lines above say why")
    return 0


def _taken(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((ADDRESS if host in ("", "0.0.0.0", "::") else host, port)) == 0  # noqa: S104 - compared


def _checked(door: Door) -> None:
    """Find out before the server starts whether its files are as they must be."""
    if door.mode != "local" and door.users is not None:
        from medvl_ui.accounts import Accounts

        if not Accounts(door.users).everybody():
            raise ConfigError(f"{door.users.name} names nobody; add somebody with: medvl view --add-user NAME --users FILE")
    if door.mode == "oidc":
        if find_spec("authlib") is None:
            raise ConfigError("sign-in by OIDC needs Authlib: pip install 'medvl[oidc]'")
        if door.secrets is None or not door.secrets.is_file():
            raise ConfigError("--auth oidc needs --secrets FILE with Streamlit's [auth] section: client, secret, provider")
        if door.secrets.stat().st_mode & 0o077:
            raise ConfigError(f"others may read {door.secrets.name}; take that away with: chmod 600 {door.secrets.name}")


def keep_users(users: Path | None, add: str | None, role: str, remove: str | None, *, password: bool) -> int:
    """Write a user into the file or take one away; exit code 0. Sessions of one who was taken away end at once.

    Raises:
        ConfigError: there is no such user or role, the passwords differ, or name or password will not do.
    """
    from medvl_ui import accounts

    if users is None:
        raise ConfigError("say which file, with --users FILE")
    if remove is not None:
        accounts.remove(users, remove)
        say(f"{remove} may no longer use the viewer: {users}")
    if add is not None:
        if role not in list(accounts.Role):
            raise ConfigError(f"a role is one of {', '.join(accounts.Role)}, not {role!r}")
        accounts.put(users, add, accounts.Role(role), _asked() if password else "")
        say(f"{add} may now use the viewer as {role}: {users}")
    return 0


def _asked() -> str:
    given = getpass("Password, 12 characters or more: ")
    if getpass("The same again: ") != given:
        raise ConfigError("the two differ; nothing was changed")
    if not given:
        raise ConfigError("a user needs a password; nothing was changed")
    return given
