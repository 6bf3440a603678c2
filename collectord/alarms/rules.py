"""The rules of alarms, as people write them in a file of JSON: their form, and reading them.

A file is a list of rules. ``parse`` and ``read`` tell all that is wrong with it at once, each with
its place; the words for that are in ``rules_errors.py``. What a rule finds in a view is settled in
``evaluation.py``, and when that becomes an alarm in ``machine.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from collectord import json_errors, proxies, wire
from collectord.alarms import rules_errors
from collectord.alarms.operations import OPERATIONS, held, looked_into
from collectord.alarms.paths import KEYS, MISSING, RANGES, VALUES, Path
from collectord.descriptors import read_file

SEVERITIES = wire.SEVERITIES
"""The names of the severities, by their numbers."""
RULES_BYTES = 1 << 20
"""The longest file of rules that is read."""
RULES = 1000
"""The most rules of one file."""
ENTRIES = 50
"""The most entries of an ``or_list``, an ``and_list`` and ``variables``."""
UVE_KEYS = 100
NAME_CHARACTERS = 128
DESCRIPTION_CHARACTERS = 4096
LABELS = 32
LABEL_CHARACTERS = 1024
TIMER = 7 * 86400
"""The longest timer, in seconds."""
TIMES = 1000
RESERVED_LABELS = frozenset({"alertname", "severity", "table", "uve"})
"""Labels that every alarm has, from its rule and its UVE."""

_PROXY = "AggProxy"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
"""Of a label, and on the wire."""


class RulesError(ValueError):
    """``errors`` has a sentence for each thing that is wrong, beginning with its place."""

    def __init__(self, origin: str, errors: list[str]) -> None:
        super().__init__(f"{origin}: {'; '.join(errors)}")
        self.origin = origin
        self.errors = errors


def _refused(text: str, place: str = "") -> PydanticCustomError:
    """An error in our words, of a field that ``place`` leads to from what is validated."""
    return PydanticCustomError(rules_errors.REFUSED, "{text}", {"text": text, "place": place})


# --- fields -------------------------------------------------------------------------------------


def _name(name: str) -> str:
    if not name.isprintable():
        raise _refused(f"{name!r} has characters that can't be printed; leave them out")
    return name


def _path(text: str) -> str:
    if not text.isprintable():
        raise _refused(f"{text!r:.200} has characters that can't be printed; leave them out")
    try:
        Path(text)
    except ValueError as error:
        raise _refused(f"{text!r:.200} {error}") from None
    return text


def _operation(name: str) -> str:
    if name not in OPERATIONS:
        raise _refused(f"{name!r:.80} is unknown; it is one of {', '.join(OPERATIONS)}")
    return name


def _uve_key(pattern: str) -> str:
    table, colon, name = pattern.partition(":")
    if not pattern.isprintable() or not table or "*" in table or (colon and not name):
        raise _refused(
            f"{pattern!r:.200} is neither a table nor keys of one; write ObjectVNTable for all of "
            "its keys, or ObjectVNTable:default-domain:* for some, where * is any run of characters"
        )
    if len(pattern.encode()) > wire.KEY_BYTES:
        raise _refused(f"{pattern!r:.80} is longer than a key, {wire.KEY_BYTES} bytes")
    return pattern


def _labels(labels: dict[str, str]) -> dict[str, str]:
    for label in labels:
        if label in RESERVED_LABELS:
            raise _refused(f"{label!r} is reserved: every alarm has it already")
        if not _NAME.fullmatch(label) or label.startswith("__"):
            raise _refused(
                f"{label!r:.200} is not the name of a label; it is made of letters, digits and _, "
                "doesn't begin with a digit, nor with two _"
            )
    return labels


_Path = Annotated[str, AfterValidator(_path)]
_UveKey = Annotated[str, AfterValidator(_uve_key)]
_Seconds = Annotated[int, Field(ge=0, le=TIMER)]
_LabelText = Annotated[str, Field(max_length=LABEL_CHARACTERS)]


def _sized(least: int, most: int) -> BeforeValidator:
    """Lists of JSON become tuples, if they aren't too long."""

    def tupled(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise _refused(f"must be a list, not {json_errors.shown(value)}")
        if not least <= len(value) <= most:
            raise _refused(f"must have {least} to {most} entries, not {len(value)}")
        return tuple(value)

    return BeforeValidator(tupled)


# --- models -------------------------------------------------------------------------------------


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Operand2(_Model):
    """What operand1 is compared with: another path, or a JSON value. One of the two is given."""

    uve_attribute: _Path | None = None
    json_value: str | None = None
    """A text that holds JSON. Whoever gives another JSON value finds its JSON here."""

    @model_validator(mode="before")
    @classmethod
    def _one_of_two(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        value = given.get("json_value")
        has_path = given.get("uve_attribute") is not None
        has_value = value is not None or ("json_value" in given and not has_path)
        if has_path == has_value:
            raise _refused("must have either uve_attribute or json_value")
        return {**given, "json_value": _json_text(value)} if has_value else given


def _json_text(value: Any) -> str:
    if isinstance(value, str):
        text = value
    else:
        try:
            text = json.dumps(value, allow_nan=False)
        except (ValueError, TypeError, RecursionError):
            text = ""
    if held(text, MISSING) is MISSING:
        raise _refused(_no_json(value), "json_value")
    return text


def _no_json(value: Any) -> str:
    if not isinstance(value, str):
        return f"{json_errors.shown(value)} is no JSON that can be compared"
    text = f"{value!r:.80} holds no JSON"
    if len(value) > 60 or not value.isprintable() or not value.strip():
        return text
    inner = json.dumps(value, ensure_ascii=False)
    return f"{text}; a text is written with its own quotes: {json.dumps(inner, ensure_ascii=False)}"


class Condition(_Model):
    """Two operands and what is asked of them."""

    operation: Annotated[str, AfterValidator(_operation)]
    operand1: _Path
    operand2: Operand2
    variables: Annotated[tuple[_Path, ...], _sized(0, ENTRIES)] = ()


class AndList(_Model):
    """It holds where all of its conditions do."""

    and_list: Annotated[tuple[Condition, ...], _sized(1, ENTRIES)]


class AlarmRules(_Model):
    """It holds where one of its lists does."""

    or_list: Annotated[tuple[AndList, ...], _sized(1, ENTRIES)]


class Rule(_Model):
    """What is an alarm, of which UVEs, and how long it takes to become one."""

    name: Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS), AfterValidator(_name)]
    """The alarm's type."""
    uve_keys: Annotated[tuple[_UveKey, ...], _sized(1, UVE_KEYS)]
    """Tables, as in ``ObjectVNTable``, and patterns of keys, as in ``ObjectVNTable:demo:*``."""
    severity: Annotated[int, Field(ge=0, le=len(SEVERITIES) - 1)]
    """The index into ``SEVERITIES``."""
    description: Annotated[str, Field(max_length=DESCRIPTION_CHARACTERS)] = ""
    enabled: bool = True
    alarm_rules: AlarmRules
    active_timer: _Seconds = 0
    """Seconds for which it must hold until it is an alarm."""
    idle_timer: _Seconds = 0
    """Seconds for which it must not hold until it is none any more."""
    freq_check_times: Annotated[int, Field(ge=0, le=TIMES)] = 0
    freq_check_seconds: _Seconds = 0
    freq_exceeded_check: bool = False
    """Whether what came up more than ``freq_check_times`` times in ``freq_check_seconds`` is an
    alarm without waiting for the active timer."""
    labels: Annotated[dict[str, _LabelText], Field(max_length=LABELS), AfterValidator(_labels)] = (
        Field(default_factory=dict)
    )

    @model_validator(mode="after")
    def _frequency_is_whole(self) -> Rule:
        if self.freq_exceeded_check:
            for field in ("freq_check_times", "freq_check_seconds"):
                if not getattr(self, field):
                    raise _refused("must be at least 1 with freq_exceeded_check", field)
        return self


# --- reading ------------------------------------------------------------------------------------


def read(path: str | FilePath) -> tuple[Rule, ...]:
    """The rules in a file. Raises RulesError, also where it can't be read."""
    try:
        text, _ = read_file(path, RULES_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RulesError(str(path), [f"the file can't be read: {reason}"]) from None
    return parse(text, str(path))


def parse(text: str | bytes, origin: str) -> tuple[Rule, ...]:
    """The rules in a text of JSON. Raises RulesError, which names ``origin``."""
    size = len(text) if isinstance(text, bytes) else len(text.encode(errors="surrogatepass"))
    if size > RULES_BYTES:
        raise RulesError(origin, [f"the rules have more than {RULES_BYTES} bytes"])
    try:
        rows = json.loads(text, object_pairs_hook=rules_errors.once)
    except (ValueError, RecursionError) as error:
        raise RulesError(origin, [rules_errors.no_json(error)]) from None
    if not isinstance(rows, list):
        found = json_errors.shown(rows)
        raise RulesError(origin, [f"the rules must be a list of objects, not {found}"])
    if len(rows) > RULES:
        raise RulesError(origin, [f"there are {len(rows)} rules; at most {RULES} are taken"])
    errors: list[str] = []
    rules: list[Rule] = []
    names: dict[str, int] = {}
    for index, row in enumerate(rows):
        name = row.get("name") if isinstance(row, dict) else None
        if isinstance(name, str):
            first = names.setdefault(name, index)
            if first != index:
                errors.append(
                    f"{rules_errors.place_of(index, row)}name: rules[{first}] has this name already"
                )
        errors.extend(rules_errors.repeated(row, rules_errors.place_of(index, row)))
        try:
            rules.append(Rule.model_validate(row))
        except ValidationError as error:
            errors.extend(rules_errors.sentences(error, index, row, Rule))
    if errors:
        raise RulesError(origin, rules_errors.limited(errors))
    return tuple(rules)


# --- what makes no sense --------------------------------------------------------------------------


def impossible(rule: Rule, configured: Mapping[str, Collection[str]] | None) -> list[str]:
    """A sentence, with its place, for each path that never leads to anything, and for each value
    that no value compares with: the rules can be gone by, but are not what somebody meant.

    Of proxy UVEs, which the collector makes, all members are known. What sources tell is theirs to
    name, but only as a struct and an attribute can be named.

    ``configured`` maps metrics to the names of their algorithms, as the query ``menu`` answers:
    proxy UVEs that are not there are impossible too. None: any may be configured.
    """
    return [
        f"rule {rule.name!r} alarm_rules.or_list[{index}].and_list[{number}].{field}: {wrong}"
        for index, entry in enumerate(rule.alarm_rules.or_list)
        for number, condition in enumerate(entry.and_list)
        for field, wrong in [
            *_unfit(condition),
            *(
                (field, wrong)
                for field, path in _paths(condition)
                for wrong in _wrong(Path(path), configured)
            ),
        ]
    ]


def _unfit(condition: Condition) -> Iterator[tuple[str, str]]:
    text = condition.operand2.json_value
    if text is not None:
        wrong = OPERATIONS[condition.operation].wrong(looked_into(held(text, None)))
        if wrong:
            found = f"{wrong} for {condition.operation!r}, not {json_errors.shown(text)}"
            yield "operand2.json_value", found


def _paths(condition: Condition) -> Iterator[tuple[str, str]]:
    yield "operand1", condition.operand1
    if condition.operand2.uve_attribute is not None:
        yield "operand2.uve_attribute", condition.operand2.uve_attribute
    for index, path in enumerate(condition.variables):
        yield f"variables[{index}]", path


def _wrong(path: Path, configured: Mapping[str, Collection[str]] | None) -> Iterator[str]:
    struct, *steps = path.steps
    if "-" in struct or struct.startswith(_PROXY):
        yield from _wrong_in_proxy(struct, steps, configured)
    elif struct == wire.ALARMS:
        yield f"{struct!r} is what comes of rules, so no rule sees it"
    elif struct not in RANGES and not _is_name(struct):
        yield _no_name(struct, "a struct")
    elif struct != KEYS and steps and steps[0] not in RANGES and not _is_name(steps[0]):
        yield _no_name(steps[0], "an attribute")


def _is_name(name: str) -> bool:
    return len(name) <= wire.NAME_BYTES and _NAME.fullmatch(name) is not None


def _no_name(name: str, of: str) -> str:
    return (
        f"{name!r:.200} never exists; the name of {of} is made of letters, digits and _, doesn't "
        f"begin with a digit, and has at most {wire.NAME_BYTES} bytes"
    )


def _wrong_in_proxy(
    struct: str, steps: Sequence[str], configured: Mapping[str, Collection[str]] | None
) -> Iterator[str]:
    try:
        metric, algorithm = proxies.parse_struct_name(struct)
    except ValueError as error:
        yield str(error)
        return
    if configured is not None and algorithm.name not in configured.get(metric, ()):
        yield (
            f"{struct!r} is not configured; add {metric}:{algorithm.name} to DEFAULT.uve_proxy_list"
        )
    names = struct
    shape: proxies.Shape | None = proxies.struct_shape(algorithm)
    for step in steps:
        if shape is None:
            yield f"{names!r} has no members, so there is no {step!r} of it"
            return
        names = f"{names}.{step}"
        if step == KEYS:
            shape = None
        elif step == VALUES:
            shape = _of_all_members(shape)
        elif step in shape:
            shape = shape[step]
        else:
            yield f"{names!r} never exists; there are {', '.join(shape)}"
            return


def _of_all_members(shape: proxies.Shape) -> proxies.Shape | None:
    """What members of members there may be; None where no member has any."""
    inner = [member for member in shape.values() if member is not None]
    return {name: of for member in inner for name, of in member.items()} if inner else None
