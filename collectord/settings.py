"""Settings: every option's value, settled before anything starts, and where it came from.

What lives here is how the command line, the environment, the configuration files and the defaults
are read, and how all that is wrong with them is told at once. The options themselves are the table
in ``options.py``; values that only another room can judge are judged by a check handed to ``load``.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import IO, TypeAlias

import configargparse

from collectord.option_types import Value, printable, quoted, text_shown
from collectord.options import BY_NAME, GENERIC, OPTIONS, SECTIONS, Option, similar

Check: TypeAlias = Callable[[str], object]
"""Judges an option's value; raises ValueError, which may hold several sentences in ``errors``."""

COMMAND_LINE = "command line"
DEFAULT = "default"
LEFT_OUT = "; not the whole value: what may be secret is left out, so don't read this line back"
"""Follows the origin of an option that is shown without its secrets."""


class ConfigurationError(Exception):
    """``errors`` has a sentence for each thing that is wrong: where, what, what would be right."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


@dataclass(frozen=True)
class Setting:
    """An option's settled value. ``origin`` is ``FILE:LINE`` or the name of another source."""

    value: Value
    origin: str

    def __str__(self) -> str:
        match self.value:
            case bool():
                return "true" if self.value else "false"
            case float():
                return f"{self.value:.9f}".rstrip("0").rstrip(".")
            case _:
                return str(self.value)


@dataclass(frozen=True)
class Settings:
    """All options, settled; ``load`` makes it. A getter raises KeyError for an unknown option."""

    _settled: Mapping[str, Setting]
    _again: Callable[[], Settings] = field(repr=False, compare=False)

    def setting(self, name: str) -> Setting:
        """The value of an option, whatever its type, and its origin."""
        return self._settled[name]

    def text(self, name: str) -> str:
        """The value of an option that is a text."""
        value = self._settled[name].value
        if not isinstance(value, str):
            raise TypeError(f"{name} is not a text")
        return value

    def integer(self, name: str) -> int:
        """The value of an option that is a whole number; of a size, in bytes."""
        value = self._settled[name].value
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is not a whole number")
        return value

    def seconds(self, name: str) -> float:
        """The value of an option that is a time span, in seconds."""
        value = self._settled[name].value
        if not isinstance(value, float):
            raise TypeError(f"{name} is not a time span")
        return value

    def flag(self, name: str) -> bool:
        """The value of an option that is a switch."""
        value = self._settled[name].value
        if not isinstance(value, bool):
            raise TypeError(f"{name} is not a switch")
        return value

    def endpoint(self, section: str) -> str:
        """Where the socket of a section listens, as ZeroMQ writes it."""
        host = self.text(f"{section}.server") or self.text("DEFAULT.hostip")
        host = f"[{host}]" if ":" in host else host
        return f"tcp://{host}:{self.integer(f'{section}.port')}"

    def error(self, name: str, reason: str) -> ConfigurationError:
        """The error to raise where a value turns out wrong only when it is used."""
        return ConfigurationError([f"{self._settled[name].origin}: {name}: {reason}"])

    def reload(self) -> Settings:
        """Read the files again, with the command line and the environment of the start.

        Raises ConfigurationError; these settings stay as they are in any case.
        """
        return self._again()

    def changed(self, other: Settings) -> tuple[str, ...]:
        """The names of the options whose value differs in ``other``."""
        return tuple(
            name
            for name, setting in self._settled.items()
            if setting.value != other._settled[name].value
        )

    def configuration_file(self) -> str:
        """The settled options as a file, each below its origin.

        It could be read back, unless an option has secrets: they are left out, and the line of its
        origin says so.
        """
        lines = []
        for section in SECTIONS:
            lines += [f"[{section}]"]
            for option in OPTIONS:
                if option.section == section:
                    setting = self._settled[option.name]
                    shown = option.shown(str(setting))
                    left_out = "" if shown == str(setting) else LEFT_OUT
                    lines += [f"# {setting.origin}{left_out}", f"{option.key}={shown}"]
            lines += [""]
        return "\n".join(lines).rstrip("\n")


def load(
    argv: Sequence[str], environ: Mapping[str, str], checks: Mapping[str, Check] | None = None
) -> Settings:
    """Settle all options: command line over environment over a later file over an earlier.

    ``argv`` is without the program's name; what it has of ``--help``, ``--version`` and
    ``--check_config`` is passed over. ``checks`` maps an option's name to what judges its value.
    Raises ConfigurationError with everything that is wrong anywhere, overridden values included.
    """
    argv, environ, checks = tuple(argv), dict(environ), dict(checks or {})
    judge = _Judge(checks)
    arguments, files = _read_command_line(argv, judge)
    variables = _read_environment(environ, judge)
    reader = _IniReader(judge)
    parser = configargparse.ArgumentParser(
        add_help=False,
        allow_abbrev=False,
        config_file_parser_class=reader,
        default_config_files=[partial(reader.open, file) for file in files],
    )
    for option in OPTIONS:
        parser.add_argument(
            f"--{option.name}",
            dest=option.name,
            default=option.default,
            env_var=option.variable,
        )
    texts = vars(
        parser.parse_args(
            [f"--{name}={text}" for name, text in arguments.items()], env_vars=environ
        )
    )
    if judge.errors:
        raise ConfigurationError(judge.errors)
    origins = {**reader.origins, **variables, **dict.fromkeys(arguments, COMMAND_LINE)}
    settled = {
        option.name: Setting(
            option.read(texts[option.name].strip()), origins.get(option.name, DEFAULT)
        )
        for option in OPTIONS
    }
    return Settings(MappingProxyType(settled), partial(load, argv, environ, checks))


class _Judge:
    """Collects what is wrong with whatever is read."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self.errors: list[str] = []
        self._checks = checks

    def refuse(self, origin: str, reason: str) -> None:
        self.errors.append(f"{origin}: {reason}")

    def judge(self, option: Option, text: str, origin: str) -> None:
        try:
            value = option.read(text.strip())
            if option.name in self._checks:
                self._checks[option.name](str(value))
        except ValueError as error:
            for reason in getattr(error, "errors", [str(error)]):
                self.refuse(origin, f"{option.name}: {reason}")


def _read_command_line(argv: Sequence[str], judge: _Judge) -> tuple[dict[str, str], list[str]]:
    """The texts of the options on the command line, and the configuration files."""
    switches = {f"--{name}" for name, argument, _ in GENERIC if not argument}
    texts: dict[str, str] = {}
    files: list[str] = []
    waiting = list(argv)
    while waiting:
        argument, equals, text = waiting.pop(0).partition("=")
        if argument in switches and not equals:
            continue
        has_next = bool(waiting) and not waiting[0].startswith("--")
        if not argument.startswith("--"):
            stray = quoted(text_shown(argument + equals + text))
            judge.refuse(COMMAND_LINE, f"{stray} belongs to no option; --help lists the options")
            continue
        if not equals and has_next:
            text = waiting.pop(0)
        name = argument.removeprefix("--")
        if name != "conf_file" and name not in BY_NAME:
            reason = "takes no value" if argument in switches else similar(name)
            shown = quoted(_name_shown(argument + (equals and equals + text)))
            judge.refuse(COMMAND_LINE, f"unknown option {shown}; {reason}")
        elif not equals and not has_next:
            judge.refuse(COMMAND_LINE, f"{name}: the value is missing; write {argument}=VALUE")
        elif name == "conf_file":
            files.append(text)
        else:
            judge.judge(BY_NAME[name], text, COMMAND_LINE)
            texts[name] = text
    return texts, files


def _name_shown(text: str) -> str:
    """What stands before the ``=``; the text may be no option, but a stray address."""
    return text_shown(text).partition("=")[0].strip()


def _read_environment(environ: Mapping[str, str], judge: _Judge) -> dict[str, str]:
    """The origins of the options in the environment."""
    origins = {}
    options = {option.variable: option for option in OPTIONS}
    for variable, option in options.items():
        if variable in environ:
            origins[option.name] = f"environment variable {variable}"
            judge.judge(option, environ[variable], origins[option.name])
    for variable in environ:
        # Only a slip of the pen is an error: Kubernetes names variables of its own after services.
        if variable.startswith("COLLECTORD_") and variable not in options:
            for close in difflib.get_close_matches(variable, options, n=1, cutoff=0.9):
                judge.refuse(
                    f"environment variable {printable(variable)}",
                    f"no such option; did you mean {close}?",
                )
    return origins


class _ConfigurationFile(io.StringIO):
    """The text of a file, by the name that it has in errors."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class _IniReader(configargparse.ConfigFileParser):  # type: ignore[misc]
    """Reads ``[SECTION]`` and ``key=value`` for ConfigArgParse, as ``SECTION.key``.

    A value is all that follows the first ``=``; ``#`` and ``;`` begin a comment only at a line's
    start; nothing is interpolated and no line goes on in the next.
    """

    def __init__(self, judge: _Judge) -> None:
        super().__init__()
        self._judge = judge
        self.origins: dict[str, str] = {}

    def open(self, path: str) -> _ConfigurationFile:
        """The file, or an empty one in place of one that cannot be read."""
        name = printable(path)
        content = b""
        try:
            with open(path, "rb") as file:
                content = file.read()
            return _ConfigurationFile(name, content.decode("utf-8-sig"))
        except OSError as error:
            self._judge.refuse(name, f"cannot be read: {error.strerror}; name a file with options")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            self._judge.refuse(f"{name}:{line}", "is not UTF-8; save the file in that encoding")
        return _ConfigurationFile(name, "")

    def parse(self, stream: IO[str]) -> dict[str, str]:
        """The texts of the options in a file. What is wrong goes to the judge."""
        texts: dict[str, str] = {}
        first: dict[str, int] = {}
        section: str | None = None
        for number, raw in enumerate(stream, start=1):
            line, origin = raw.strip(), f"{stream.name}:{number}"
            if not line or line[0] in "#;":
                continue
            if line.startswith("["):
                section = self._section(line, origin)
                continue
            if section == "":
                continue
            key, equals, text = (part.strip() for part in line.partition("="))
            name = f"{section}.{key}"
            if not equals:
                shown = quoted(text_shown(line))
                reason = f"{shown} is neither [SECTION] nor key=value; write one of them"
                self._judge.refuse(origin, reason)
            elif section is None:
                reason = f"{quoted(_name_shown(line))} stands before any section; {similar(key)}"
                self._judge.refuse(origin, reason)
            elif name not in BY_NAME:
                shown = quoted(f"{section}.{_name_shown(line)}")
                self._judge.refuse(origin, f"unknown option {shown}; {similar(name)}")
            elif name in first:
                reason = f"is given again, first in line {first[name]}; leave one of them"
                self._judge.refuse(origin, f"{name}: {reason}")
            else:
                first[name] = number
                self._judge.judge(BY_NAME[name], text, origin)
                texts[name] = text
                # ConfigArgParse reads the last file first, because that one wins.
                self.origins.setdefault(name, origin)
        return texts

    def _section(self, line: str, origin: str) -> str:
        """The section that a line begins; "" for an unknown one, whose options are passed over."""
        name = line[1:-1].strip() if line.endswith("]") else ""
        if name in SECTIONS:
            return name
        known = ", ".join(f"[{section}]" for section in SECTIONS)
        self._judge.refuse(origin, f"unknown section {quoted(line)}; the sections are {known}")
        return ""
