"""How ``collectorctl`` shows alarms to people: what is raised, what becomes of it, and why.

As in ``terminal.py``, whatever came from outside is made clean before a terminal gets it. Words say
everything; colours only say it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from collectord import alarm_words, wire
from collectord.terminal import clean, moment, shown, table

VALUE_CHARACTERS = 80
"""Of a value that is longer, the beginning is shown; JSON has the whole."""
MATCHES = 3
"""How many of the places at which a condition held are shown."""
STYLES = {"critical": "bold red", "major": "yellow", "minor": "cyan"}
WHOLE = ["severity", "since", "ack"]


def severity(number: Any) -> Text:
    """A severity as a word; as it is where there is none for it."""
    known = isinstance(number, int) and 0 <= number < len(wire.SEVERITIES)
    word = wire.SEVERITIES[number] if known else shown(number)
    return Text(word, style=STYLES.get(word, ""))


def alarms(rows: Iterable[Mapping[str, Any]]) -> RenderableType:
    """Raised alarms, each with its ``key``: a row for each."""
    return table("", [*WHOLE, "alarm, and what holds"], map(_row, rows), WHOLE)


def _row(alarm: Mapping[str, Any]) -> list[Any]:
    return [
        severity(alarm.get("severity")),
        moment(alarm.get("timestamp")),
        "yes" if alarm.get("ack") else "no",
        Text.assemble(
            (clean(str(alarm.get("key"))), "bold"),
            (clean(f" {alarm.get('type')}"), "cyan"),
            *(f"\n  {line}" for line in what_holds(alarm.get("alarm_rules"))),
        ),
    ]


def acknowledged(alarm: Mapping[str, Any]) -> RenderableType:
    """A line of the alarm that was acknowledged."""
    return Text.assemble(
        "acknowledged: ",
        severity(alarm.get("severity")),
        clean(f" {alarm.get('type')} of {alarm.get('key')}"),
        f", raised {moment(alarm.get('timestamp'))}",
    )


NEWS_STYLES = {"raised": "bold", "changed": "bold", "cleared": "green", "acknowledged": "dim"}


def news(told: Mapping[str, Any]) -> Text:
    """A line of what became of an alarm, and when it was heard."""
    line = Text.assemble(
        (f"{datetime.now():%H:%M:%S} ", "dim"),
        (f"{told['what']} ", NEWS_STYLES[told["what"]]),
    )
    if told["type"] is None:
        return line.append(clean(f"all alarms of {told['key']}"))
    line.append_text(severity(told["severity"])).append(" ")
    line.append(clean(f"{told['type']} "), "cyan").append(clean(told["key"]), "bold")
    reasons = what_holds(told.get("alarm_rules"))
    return line.append(f" {'; '.join(reasons)}") if reasons else line


def what_holds(alarm_rules: Any) -> list[str]:
    """What held of a rule: a line for each condition, clean, and ``or`` between those that each
    would have been enough together."""
    lines: list[str] = []
    for conditions in alarm_words.entries(alarm_rules):
        lines += ["or"] if lines else []
        lines += map(_condition_that_held, conditions)
    return lines


def _condition_that_held(held: Mapping[str, Any]) -> str:
    condition = held["condition"]
    places = [_values(match, condition["operation"]) for match in held["match"][:MATCHES]]
    return f"{condition_text(condition)}: {alarm_words.listed(places, len(held['match']))}"


def condition_text(condition: Mapping[str, Any]) -> str:
    """A condition as a person would write it: ``operand1 operation operand2``."""
    return alarm_words.condition(condition, clipped, clean)


def _values(match: Mapping[str, Any], operation: str) -> str:
    """What the operands and variables were at one place."""
    value = alarm_words.found(match, operation, clipped)
    variables = (match.get("json_variables") or {}).items()
    texts = [f"{clean(name)} {clipped(variable)}" for name, variable in variables]
    return f"{value} ({', '.join(texts)})" if texts else value


def clipped(value: Any) -> str:
    """A value on one line, clean, and not too long."""
    text = shown(value)
    return text if len(text) <= VALUE_CHARACTERS else f"{text[: VALUE_CHARACTERS - 1]}…"


def checked(summary: Mapping[str, Any]) -> RenderableType:
    """A sentence on rules that nothing is wrong with."""
    disabled = summary["rules"] - summary["enabled"]
    where = summary["proxies"]
    return Text(
        f"{summary['rules']} {'rule' if summary['rules'] == 1 else 'rules'}, nothing wrong"
        + (f"; {disabled} of them disabled" if disabled else "")
        + (f"; proxy UVEs as {clean(where)} has them" if where else "")
    )


def tried(result: Mapping[str, Any]) -> RenderableType:
    """What becomes of each rule on one UVE, and why."""
    text = Text("\n\n").join([_tried(rule) for rule in result["rules"]] or [_untried(result)])
    if result["rules"] and result["others"]:
        text.append("\n\nnot for this UVE: ", "dim").append(clean(", ".join(result["others"])))
    return text


def _untried(result: Mapping[str, Any]) -> Text:
    return Text(f"no rule of {len(result['others'])} is for {clean(str(result['key']))}")


def _tried(rule: Mapping[str, Any]) -> Text:
    text = Text(clean(rule["name"]), "bold")
    text = Text.assemble(text, " (", severity(rule["severity"]), ") ")
    text.append("holds" if rule["holds"] else "doesn't hold", _yes_style(rule["holds"]))
    if rule["holds"] and rule["active_timer"]:
        text.append(f"; it is an alarm once it has done so for {rule['active_timer']} s")
    if not rule["enabled"]:
        text.append("; but it is disabled")
    and_list = None
    for condition in rule["conditions"]:
        before, and_list = and_list, condition["place"].partition(".")[0]
        text.append("\n  or" if before not in (None, and_list) else "")
        text.append_text(_tried_condition(condition))
    return text


def _tried_condition(condition: Mapping[str, Any]) -> Text:
    text = Text("\n  ").append(
        "yes " if condition["holds"] else "no  ", _yes_style(condition["holds"])
    )
    text.append(f"{condition_text(condition['condition'])}\n      ")
    found = f"operand1 is {_some(condition['operand1'])}"
    if "uve_attribute" in condition["condition"]["operand2"]:
        found += f", operand2 is {_some(condition['operand2'])}"
    return text.append(f"{found}: {clean(condition['why'])}", "dim")


def _some(values: Sequence[str]) -> str:
    shown_values = [clipped(value) for value in values[:MATCHES]] or ["nothing"]
    more = len(values) - MATCHES
    return ", ".join(shown_values) + (f" and {more} more" if more > 0 else "")


def _yes_style(holds: bool) -> str:
    return "green" if holds else "red"
