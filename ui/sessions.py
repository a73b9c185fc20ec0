"""Who is signed in, and how often somebody failed to; in the memory of the process, so that a restart signs everybody out."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

Clock = Callable[[], float]
PER_NAME, OVERALL, WINDOW_S = 5, 60, 15 * 60.0
_NAMES_HELD = 10_000


@dataclass(frozen=True)
class Session:
    """One sign-in.

    Args:
        name: of the user.
        proof: changes when the account does, such as by a new password; the session then ends.
        begun, seen: seconds of the clock.
    """

    name: str
    proof: str
    begun: float
    seen: float


class Sessions:
    """All sign-ins of a process, by a hash of their token.

    Args:
        idle_s: a session ends when nothing was done in it for so long.
        longest_s: and at this age in any case.
        clock: seconds.
    """

    def __init__(self, idle_s: float, longest_s: float, clock: Clock = time.time) -> None:
        self.idle_s, self.longest_s, self._clock = idle_s, longest_s, clock
        self._lock = threading.Lock()
        self._held: dict[str, Session] = {}
        self._ended: dict[str, float] = {}

    def begin(self, name: str, proof: str, token: str | None = None) -> str:
        """A new session; returns the token that opens it. A token given here, of an OIDC sign-in, opens one session only."""
        token = token or secrets.token_urlsafe(32)
        now = self._clock()
        with self._lock:
            self._forget(now)
            self._held[_key(token)] = Session(name, proof, now, now)
        return token

    def find(self, token: str | None) -> Session | None:
        """The session of a token, if it has not ended."""
        if not token:
            return None
        with self._lock:
            self._forget(self._clock())
            return self._held.get(_key(token))

    def marked(self, mark: str) -> Session | None:
        """The session whose token has this SHA-256, if it has not ended."""
        with self._lock:
            self._forget(self._clock())
            return self._held.get(mark)

    def active(self, token: str | None) -> Session | None:
        """The same, and something was done in it just now."""
        found = self.find(token)
        if found is not None and token:
            with self._lock:
                self._held[_key(token)] = replace(found, seen=self._clock())
        return found

    def end(self, token: str) -> None:
        """Sign out."""
        with self._lock:
            if self._held.pop(_key(token), None):
                self._ended[_key(token)] = self._clock()

    def was(self, token: str) -> bool:
        """Whether a session of this token has ended."""
        with self._lock:
            self._forget(self._clock())
            return _key(token) in self._ended

    def fresh(self, begun: float) -> bool:
        """Whether a sign-in of that time, elsewhere, is young enough to begin a session with."""
        return self._clock() - begun < self.longest_s

    def left(self, session: Session) -> float:
        """Seconds until it ends by itself."""
        now = self._clock()
        return max(0.0, min(session.seen + self.idle_s, session.begun + self.longest_s) - now)

    def everybody(self) -> list[Session]:
        """All sessions, the oldest first."""
        with self._lock:
            self._forget(self._clock())
            return sorted(self._held.values(), key=lambda session: session.begun)

    def _forget(self, now: float) -> None:
        for key, session in list(self._held.items()):
            if now >= min(session.seen + self.idle_s, session.begun + self.longest_s):
                del self._held[key]
                self._ended[key] = now
        for key, ended in list(self._ended.items()):
            if now - ended > self.longest_s:
                del self._ended[key]


def _key(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Attempts:
    """Slows down guessing: so many failures for a name, and so many in all, within a window.

    Args:
        per_name, overall: failures allowed.
        window_s: length of the window.
        clock: seconds.
    """

    def __init__(
        self, per_name: int = PER_NAME, overall: int = OVERALL, window_s: float = WINDOW_S, clock: Clock = time.monotonic
    ) -> None:
        self.per_name, self.overall, self.window_s, self._clock = per_name, overall, window_s, clock
        self._lock = threading.Lock()
        self._names: dict[str, deque[float]] = {}
        self._all: deque[float] = deque()

    def begin(self, name: str) -> float:
        """Seconds to wait before another try; 0 where this one may be made: it counts as failed until `succeeded`."""
        with self._lock:
            now = self._clock()
            mine = self._names.setdefault(_key(name), deque())
            for tries in (mine, self._all):
                while tries and now - tries[0] >= self.window_s:
                    tries.popleft()
            full = [tries for tries, most in ((mine, self.per_name), (self._all, self.overall)) if len(tries) >= most]
            if full:
                return max(self.window_s - (now - tries[0]) for tries in full)
            mine.append(now)
            self._all.append(now)
            self._trim()
            return 0.0

    def succeeded(self, name: str) -> None:
        """The try begun last was good: the name's failures are forgotten, this try is taken back from the count of all."""
        with self._lock:
            self._names.pop(_key(name), None)
            if self._all:
                self._all.pop()

    def _trim(self) -> None:
        while len(self._names) > _NAMES_HELD:
            self._names.pop(next(iter(self._names)))
