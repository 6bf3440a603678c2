"""The options: every one exactly once, in ``OPTIONS``, and what is made straight from that table.

Made here are the ``--help`` listing and the configuration file, which
``python -m collectord.options`` prints. How a value is read from its text is ``option_types.py``'s,
and where it comes from is settled in ``settings.py``; what options do is said in their help and
done in the rooms that ask for them.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from collectord.option_types import (
    Type,
    Value,
    address,
    address_or_empty,
    addresses_shown,
    flag,
    hostname,
    integer,
    one_line,
    one_of,
    quoted,
    seconds,
    size,
    words,
)

LOG_LEVELS = (
    "SYS_EMERG",
    "SYS_ALERT",
    "SYS_CRIT",
    "SYS_ERR",
    "SYS_WARN",
    "SYS_NOTICE",
    "SYS_INFO",
    "SYS_DEBUG",
)
SYSLOG_FACILITIES = (
    *(f"LOG_{name}" for name in ("USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS")),
    *(f"LOG_{name}" for name in ("UUCP", "CRON", "AUTHPRIV", "FTP")),
    *(f"LOG_LOCAL{number}" for number in range(8)),
)

_COMMENT = re.compile(r"\s[;#]")


@dataclass(frozen=True)
class Option:
    """One option. ``note`` is what the configuration file says beyond ``help``.

    ``shown`` makes of a value what may be shown of it, where a part of it may be a secret. It is
    given any text, not only good ones.
    """

    section: str
    key: str
    type: Type
    default: str
    help: str
    note: str = ""
    shown: Callable[[str], str] = str

    @property
    def name(self) -> str:
        """As on the command line, without its dashes."""
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"COLLECTORD_{self.section}_{self.key}".upper()

    def read(self, text: str) -> Value:
        """The value of a text. Raises ValueError: what is wrong, and what would be right."""
        shown = quoted(self.shown(text))
        # Both would be taken for a part of the value in silence, where it can be any text.
        if _COMMENT.search(text):
            raise ValueError(f"{shown} holds a comment; put it on a line of its own")
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            raise ValueError(f"{shown} is in quotes; leave them out")
        return self.type(text)


_PROXY_LIST = " ".join(
    f"UveVirtualNetworkAgent-{attribute}:AggProxySumAnomalyEWM01:AggProxySum"
    for attribute in ("egress_flow_count", "ingress_flow_count")
)
_PORT = integer(0, 65_535)
_COUNT = integer(1, 1_000_000_000)
_PORT_NOTE = "0 takes any free port; the log says which."

OPTIONS: tuple[Option, ...] = (
    Option(
        "DEFAULT",
        "hostip",
        address,
        "127.0.0.1",
        "Address to listen on where a section gives no server",
        "Other than this host's own (127.0.0.1, ::1) it wants keys: SECURITY says how.",
    ),
    Option(
        "DEFAULT",
        "hostname",
        hostname,
        "",
        "Name of this host in status and logs; empty: as the system says",
    ),
    Option(
        "DEFAULT",
        "partitions",
        integer(1, 1024),
        "30",
        "Parts that the state is divided into, by UVE key",
    ),
    Option(
        "DEFAULT",
        "log_file",
        one_line,
        "",
        "File that the log is written to; empty: standard error",
    ),
    Option("DEFAULT", "log_level", one_of(*LOG_LEVELS), "SYS_NOTICE", "Least severity logged"),
    Option("DEFAULT", "log_files_count", integer(1, 1000), "10", "Rotated log files kept"),
    Option(
        "DEFAULT",
        "log_file_size",
        size(0, 1 << 40),
        "1048576",
        "Size at which the log file is rotated; 0: never",
    ),
    Option(
        "DEFAULT",
        "log_local",
        flag,
        "true",
        "Log to log_file or standard error; false: nowhere but to syslog, where that is used",
    ),
    Option("DEFAULT", "use_syslog", flag, "false", "Log to the syslog of this host, too"),
    Option(
        "DEFAULT",
        "syslog_facility",
        one_of(*SYSLOG_FACILITIES),
        "LOG_LOCAL0",
        "Syslog facility that receives the log",
    ),
    Option(
        "DEFAULT",
        "uve_proxy_list",
        words,
        _PROXY_LIST,
        "UVE Proxy List",
        "<struct>-<attribute>:<algorithm>[:<algorithm>], and more of them after a space: the "
        "aggregations that run on these attributes. `collectorctl menu` shows the algorithms.",
    ),
    Option(
        "DEFAULT",
        "uve_proxy_lateness",
        seconds(0, 300),
        "5",
        "Seconds for which a period stays open for late samples after it ended",
    ),
    Option(
        "COLLECTOR",
        "server",
        address_or_empty,
        "",
        "Address to listen on for updates; empty: DEFAULT.hostip",
    ),
    Option("COLLECTOR", "port", _PORT, "8086", "Port to listen on for updates", _PORT_NOTE),
    Option(
        "COLLECTOR",
        "message_size",
        size(1 << 10, 1 << 30),
        "16 MiB",
        "Largest batch of updates that is taken",
    ),
    Option(
        "COLLECTOR",
        "source_timeout",
        seconds(1, 604_800),
        "180",
        "Seconds of silence after which a source is gone and its records are removed",
    ),
    Option(
        "QUERY",
        "server",
        address_or_empty,
        "",
        "Address to listen on for queries; empty: DEFAULT.hostip",
    ),
    Option("QUERY", "port", _PORT, "8087", "Port to listen on for queries", _PORT_NOTE),
    Option(
        "QUERY",
        "reply_size",
        size(64 << 10, 1 << 30),
        "4 MiB",
        "Size of a reply from which on the rest is left to another request",
    ),
    Option(
        "STREAM",
        "server",
        address_or_empty,
        "",
        "Address to listen on for who watches; empty: DEFAULT.hostip",
    ),
    Option("STREAM", "port", _PORT, "8088", "Port to listen on for who watches", _PORT_NOTE),
    Option("LIMITS", "keys", _COUNT, "2000000", "Most UVE keys that are held"),
    Option(
        "LIMITS",
        "records",
        _COUNT,
        "10000000",
        "Most records that are held: structs of a UVE by source",
    ),
    Option("LIMITS", "sources", _COUNT, "100000", "Most sources that are known"),
    Option("LIMITS", "bytes", size(1 << 20, 1 << 50), "8 GiB", "Most memory that the state takes"),
    Option("LIMITS", "source_records", _COUNT, "2000000", "Most records that one source may hold"),
    Option(
        "LIMITS",
        "source_bytes",
        size(1 << 10, 1 << 50),
        "2 GiB",
        "Most memory that the records of one source may take",
    ),
    Option(
        "LIMITS",
        "alarms",
        _COUNT,
        "100000",
        "Most alarms that are held: raised, or about to be",
    ),
    Option(
        "ALARM",
        "rules_file",
        one_line,
        "",
        "File with the rules of alarms, in JSON; empty: there are none",
        "SIGHUP reads it again. `collectorctl rules check` says what is wrong with one.",
    ),
    Option("ALARM", "log", flag, "true", "Log each alarm that is raised, changed or cleared"),
    Option(
        "ALARM",
        "alertmanager",
        words,
        "",
        "Addresses of Alertmanagers that are sent alarms, as in http://127.0.0.1:9093",
        shown=addresses_shown,
    ),
    Option(
        "ALARM",
        "alertmanager_interval",
        seconds(1, 3600),
        "60",
        "Seconds after which an active alarm is sent to Alertmanager again",
    ),
    Option(
        "ALARM",
        "webhook",
        words,
        "",
        "Addresses that each change of an alarm is posted to",
        shown=addresses_shown,
    ),
    Option(
        "ALARM",
        "webhook_secret_file",
        one_line,
        "",
        "File with the secret that what goes to webhooks is signed with; empty: it isn't",
    ),
    Option(
        "ALARM",
        "command",
        one_line,
        "",
        "Program, with arguments, that is run for each change of an alarm; no shell",
        "The change is written to its standard input, in JSON.",
    ),
    Option(
        "ALARM",
        "timeout",
        seconds(0.1, 600),
        "10",
        "Seconds that one attempt to tell someone of an alarm may take",
    ),
    Option(
        "ALARM",
        "queue",
        integer(1, 1_000_000),
        "10000",
        "Most changes of alarms that wait to be told, for each way of telling",
    ),
    Option(
        "SNAPSHOT",
        "directory",
        one_line,
        "snapshots",
        "Directory that the state is saved in; empty: nowhere",
        "Unless it begins with / it is under the state directory: $STATE_DIRECTORY, as systemd "
        "sets it, or else $XDG_STATE_HOME/collectord/<COLLECTOR.port>, or else "
        "~/.local/state/collectord/<COLLECTOR.port>. Only one collector may use it.",
    ),
    Option(
        "SNAPSHOT",
        "interval",
        seconds(1, 3600),
        "10",
        "Seconds from one saving of the state to the next",
        "Sources keep what they sent until it is saved. Where a saving takes longer than a quarter "
        "of it, the next waits for four times as long as that one took.",
    ),
    Option(
        "SNAPSHOT",
        "grace",
        seconds(0, 3600),
        "30",
        "Seconds after a restart for sources to come back in, before periods close without them",
    ),
    Option(
        "SECURITY",
        "server_key",
        one_line,
        "",
        "File with the secret key of this collector; empty: no keys, nothing is encrypted",
        "`collectorctl keygen` makes it. ZeroMQ's CURVE; all three sockets use it.",
    ),
    Option(
        "SECURITY",
        "client_keys",
        one_line,
        "",
        "Directory with the public key of each client that may connect",
        "A file for each, NAME.key, which also says what it may do: send, ask, watch, and as which "
        "sources. SIGHUP reads it again.",
    ),
    Option(
        "SECURITY",
        "insecure",
        flag,
        "false",
        "Allow other addresses than this host's own without keys",
        "Whoever can reach the address can then send, ask and watch.",
    ),
)

GENERIC = (
    ("conf_file", "arg (=Configuration file)", ""),
    ("help", "", "help message"),
    ("version", "", "Display version information"),
    ("check_config", "", "Show the settled options or all that is wrong, and exit"),
)
"""Name, argument and help of what belongs on the command line alone."""

BY_NAME = {option.name: option for option in OPTIONS}
SECTIONS = tuple(dict.fromkeys(option.section for option in OPTIONS))


def similar(name: str) -> str:
    """A sentence's end that says what an unknown name may have been meant to be."""
    key = name.rpartition(".")[2]
    elsewhere = [option.name for option in OPTIONS if option.key == key]
    close = difflib.get_close_matches(name, BY_NAME, n=1, cutoff=0.75)
    names = elsewhere or close
    return f"did you mean {' or '.join(names)}?" if names else "--help lists the options"


_COLUMN = 40
_WIDTH = 39


def listing() -> str:
    """What ``--help`` prints, in the form of boost::program_options, as Contrail's does."""

    def entry(name: str, argument: str, meaning: str) -> str:
        head = f"  --{name} {argument}".rstrip()
        lines = textwrap.wrap(meaning, _WIDTH, break_on_hyphens=False)
        if lines and len(head) < _COLUMN:
            head = f"{head:{_COLUMN}}{lines.pop(0)}"
        return "\n".join([head, *(" " * _COLUMN + line for line in lines)])

    return "\n".join(
        [
            "Allowed options:",
            "",
            "Generic options:",
            *(entry(*generic) for generic in GENERIC),
            "",
            "Configuration options:",
            *(
                entry(
                    option.name,
                    f"arg (={option.default})" if option.default else "arg",
                    option.help,
                )
                for option in OPTIONS
            ),
        ]
    )


def configuration_file() -> str:
    """A configuration file with every option, its help, and its default commented out."""

    def comment(text: str) -> list[str]:
        return textwrap.wrap(
            text, 98, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )

    lines = [
        "# Configuration of collectord, read with --conf_file. Each option has its default here.",
        "#",
        "# [SECTION] key=value is --SECTION.key value on the command line and the environment",
        "# variable COLLECTORD_SECTION_KEY. The command line wins over the environment, that over",
        "# the files, and a later file over an earlier. A comment has a line of its own.",
    ]
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        for option in OPTIONS:
            if option.section == section:
                lines += ["", *comment(option.help), *comment(option.note)]
                lines.append(f"#{option.key}={option.default}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(configuration_file())
