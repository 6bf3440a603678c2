"""``collectorctl keygen``: make a key pair, and say what goes where."""

from __future__ import annotations

import argparse
from pathlib import Path

from collectord import curve, terminal
from collectord.ctl_common import OK, Output, UsageError, made
from collectord.curve import RIGHTS


def keygen(options: argparse.Namespace) -> int:
    """``collectorctl keygen``."""
    _check(options)
    metadata = made(curve.metadata_of, rights=options.rights, sources=options.sources)
    public, secret = made(
        curve.create_pair, directory=options.directory, name=options.name, metadata=metadata
    )
    result = {
        "public": str(public.absolute()),
        "secret": str(secret.absolute()),
        "rights": metadata.get("rights", "").split(),
        "sources": options.sources or ["*"] if "send" in options.rights else [],
    }
    lines = _for_a_collector if options.server else _for_a_client
    Output(options).one(result, terminal.lines, lines(public, secret, options))
    return OK


def _check(options: argparse.Namespace) -> None:
    known = ", ".join(RIGHTS)
    if options.server:
        if options.rights or options.sources:
            raise UsageError("a collector's own pair has no --rights and no --sources")
        return
    if not options.rights:
        raise UsageError(f"say what the client may do: --rights, and of {known} what it needs")
    for right in options.rights:
        if right not in RIGHTS:
            raise UsageError(f"there is no right {right!r}; there are {known}")
    if options.sources and "send" not in options.rights:
        raise UsageError("--sources are those that a client sends as: it needs --rights send")


def _for_a_collector(public: Path, secret: Path, options: argparse.Namespace) -> list[str]:
    return [
        f"{secret}: the collector's secret key; keep it readable for the collector alone, and set",
        f"    SECURITY.server_key={secret.absolute()}",
        f"{public}: its public key; every client gets a copy, for --server_key",
    ]


def _for_a_client(public: Path, secret: Path, options: argparse.Namespace) -> list[str]:
    may = [right for right in RIGHTS if right in options.rights]
    if "send" in may:
        sources = " ".join(options.sources) or "every source (no --sources were given)"
        may[0] = f"send as {sources}"
    return [
        f"{secret}: the client's secret key; the client keeps it to itself, for --key",
        f"{public}: goes into the collector's directory SECURITY.client_keys; then send it SIGHUP",
        f"    it may {', '.join(may)}",
    ]
