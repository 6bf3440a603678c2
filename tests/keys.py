"""Key pairs for tests, as an operator makes them: a collector's, and a client's for each use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from collectord import curve
from collectord.curve import RIGHTS, Curve


class Keys:
    """The keys of one collector in ``directory``; ``clients`` are the files that it lets in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clients = directory / "clients"
        self.clients.mkdir()
        self.server, self.server_secret = curve.create_pair(directory, "collector", {})

    @property
    def options(self) -> list[str]:
        """For the collector's command line."""
        return [
            f"--SECURITY.server_key={self.server_secret}",
            f"--SECURITY.client_keys={self.clients}",
        ]

    def admit(
        self, name: str, rights: Sequence[str] = RIGHTS, sources: Sequence[str] = ()
    ) -> Curve:
        """A client's keys, which the collector knows when it reads its directory next."""
        metadata = curve.metadata_of(rights, sources)
        public, secret = curve.create_pair(self.clients, name, metadata)
        # The secret one does not belong there.
        kept = secret.rename(self.directory / secret.name)
        assert public.exists()
        return Curve.load(kept, self.server)

    def strange(self, name: str = "stranger") -> Curve:
        """A client's keys that the collector never hears of."""
        _, secret = curve.create_pair(self.directory, name, curve.metadata_of(RIGHTS, ()))
        return Curve.load(secret, self.server)

    def of(self, name: str) -> Curve:
        """The keys of a client that was made before."""
        return Curve.load(self.secret_file(name), self.server)

    def secret_file(self, name: str) -> Path:
        return self.directory / f"{name}.key_secret"

    def revoke(self, name: str) -> None:
        """Take a client's key out of what the collector reads."""
        (self.clients / f"{name}.key").unlink()
