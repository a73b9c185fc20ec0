"""Which bundle of a store is in use, and which one was: promotion, rollback, history."""

from __future__ import annotations

from pathlib import Path

from medvl.errors import BundleError, ConfigError
from medvl.models.bundle import fingerprint
from medvl.models.store_journal import Journal, Promotion, standing
from medvl.models.store_shelf import SHORT, Entry, Shelf, default_folder, plain_values

__all__ = ["BundleStore", "Entry", "Promotion", "default_folder"]


class BundleStore(Shelf):
    """Bundles in `folder` (None takes `default_folder`), and in `promotions.jsonl` what was in use when."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self._journal = Journal(self.folder / "promotions.jsonl")

    def promote(self, name: str, *, force: bool = False, reason: str = "") -> Promotion:
        """Put a bundle in use; the last line of the history where it is in use already.

        Its latest gate against the bundle in use must have passed. With `force` and a written reason any whole bundle may be put
        in use; both are kept in the history.

        Raises:
            BundleError: it is not in the store, not whole, was never gated or failed. ConfigError: force without a reason.
        """
        if force and not reason.strip():
            raise ConfigError("a promotion by force needs a written reason; give one with --reason")
        with self.locked():
            entry = self.find(name)
            self.verify(entry)
            lines = self._journal.read()
            stack = standing(lines)
            now = stack[-1] if stack else None
            if now == entry.sha256:
                return lines[-1]
            gate, refusal = self._judged(entry, now)
            if refusal and not force:
                raise BundleError(f"{entry.key} is not promoted: {refusal}, or give --force with --reason")
            was = now or self._before(entry)
            told = {"gate": gate, "forced": bool(refusal), "reason": reason.strip()}
            return self._journal.append("promote", was=was, now=entry.sha256, name=entry.key, **told)

    def rollback(self, *, reason: str = "") -> Promotion:
        """Put the bundle in use again that was in use before the last promotion still in force.

        Raises:
            BundleError: none was, or it is gone.
        """
        with self.locked():
            stack = standing(self._journal.read())
            if len(stack) < 2:
                raise BundleError("there is nothing to go back to: no bundle was in use before; promote another one instead")
            entry = self._of(stack[-2])
            self._intact(entry)
            return self._journal.append("rollback", was=stack[-1], now=entry.sha256, name=entry.key, reason=reason.strip())

    def promoted(self) -> Entry | None:
        """The entry in use; None where nothing was promoted.

        Raises:
            BundleError: the bundle in use is gone from the store, or another one lies in its place.
        """
        now = self.in_use()
        if now is None:
            return None
        entry = self._of(now)
        self._intact(entry)
        return entry

    def in_use(self) -> str | None:
        """SHA-256 of the bundle in use, whatever has become of it; None where nothing was promoted."""
        stack = standing(self._journal.read())
        return stack[-1] if stack else None

    def current(self) -> Path | None:
        """The folder of the bundle in use; None where nothing was promoted. Raises as `promoted`."""
        entry = self.promoted()
        return None if entry is None else self.folder_of(entry)

    def history(self) -> tuple[Promotion, ...]:
        """Every promotion and rollback, oldest first.

        Raises:
            BundleError: the journal was altered.
        """
        return self._journal.read()

    def _judged(self, entry: Entry, now: str | None) -> tuple[str | None, str]:
        """The gate that counts, and why it does not allow a promotion ("" where it does)."""
        gates = list(zip(entry.gates, self.gates_of(entry), strict=True))
        if not gates:
            return None, "it was never gated; run medvl gate and add the result with medvl bundles add --gate"
        fits = [pair for pair in gates if now in (None, pair[1]["before"]["sha256"])]
        if not fits:
            key = self._of(now).key if now else ""
            return None, f"{key} is in use, and its gate compared it with another bundle; run medvl gate against {key}"
        sha, gate = fits[-1]
        return sha, "" if gate["passed"] is True else "its gate failed; see what medvl bundles show says"

    def _before(self, entry: Entry) -> str | None:
        """What was in use before the first promotion, as far as can be known: what the gate compared with, else the parent."""
        known = {e.sha256 for e in self.entries()} - {entry.sha256}
        gates = self.gates_of(entry)
        likely = ([gates[-1]["before"]["sha256"]] if gates else []) + [entry.parent]
        return next((sha for sha in likely if sha in known), None)

    def _of(self, sha256: str) -> Entry:
        found = next((e for e in self.entries() if e.sha256 == sha256), None)
        if found is None:
            raise BundleError(f"bundle {sha256[:SHORT]} is gone from the store; add it again or promote another one")
        return found

    def _intact(self, entry: Entry) -> None:
        """A quick look: the list of files is the one that was added. Files themselves are checked when the bundle is opened."""
        try:
            found = fingerprint(plain_values(self.folder_of(entry) / "bundle.json")["files"])
        except (BundleError, KeyError, AttributeError):
            found = ""
        if found != entry.sha256:
            raise BundleError(f"{entry.key} in the store was altered; add it again or promote another one")
