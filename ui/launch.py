"""The command that serves the viewer, with its settings; imports no Streamlit, so that asking for it costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ADDRESS = "127.0.0.1"
SETTINGS: dict[str, str | tuple[str, ...]] = {
    "server.address": ADDRESS,
    "server.allowedHosts": (ADDRESS, "localhost"),
    "server.enableXsrfProtection": "true",
    "server.enableCORS": "true",
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
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


def command(results: Path, *, port: int, open_browser: bool, extras: Sequence[str] = ()) -> list[str]:
    """Arguments of the process that serves `results` on the loopback address until it is stopped.

    Args:
        results: what `medvl infer` wrote.
        port: to listen on.
        open_browser: whether Streamlit opens one.
        extras: of `medvl_ui.extras.options`.
    """
    settings = SETTINGS | {"server.port": str(port), "server.headless": str(not open_browser).lower()}
    page = Path(__file__).with_name("viewer_server.py")
    options: list[str] = []
    for name, value in settings.items():
        for item in (value,) if isinstance(value, str) else value:
            options += [f"--{name}", item]
    return [sys.executable, "-m", "streamlit", "run", str(page), *options, "--", str(results.resolve()), *extras]
