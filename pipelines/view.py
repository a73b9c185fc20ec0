"""`medvl view`: serve the viewer page on a results folder, on this machine only."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from pathlib import Path

from medvl.errors import ConfigError
from medvl_ui.extras import options
from medvl_ui.launch import ADDRESS, command

from .built_in import bundle_folder
from .console import say


def run(
    results: Path,
    *,
    port: int = 8501,
    open_browser: bool = True,
    index: Path | None = None,
    bundle: str | None = None,
    show_text: bool = False,
) -> int:
    """Exit code 0 once the reader has stopped the viewer with Ctrl-C.

    Raises:
        ConfigError: `results` is no folder, the port is taken, or the server stopped by itself; `index` holds no index, or
            `bundle` is none.
    """
    if not results.is_dir():
        raise ConfigError(f"no such results folder: {results}; run medvl infer first, or check the path")
    if index is not None and not (index / "cases.sqlite").is_file():
        raise ConfigError(f"no index in {index}; build it with medvl index build")
    given = options(index, bundle_folder(bundle) if bundle else None, show_text=show_text)
    if _taken(port):
        raise ConfigError(f"port {port} is in use; choose another with --port {port + 1}")
    say(f"Viewer at http://{ADDRESS}:{port}  (Ctrl-C stops it)")
    process = subprocess.Popen(command(results, port=port, open_browser=open_browser, extras=given))
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


def _taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((ADDRESS, port)) == 0
