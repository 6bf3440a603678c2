"""How ``collectorctl`` shows things to people: tables and lines, from what a collector answered.

Whatever came from outside passes through ``clean`` before it reaches a terminal: a source may have
put anything into a text. Nothing here asks, decides or exits. How alarms look is in
``terminal_alarms.py``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from collectord import wire
from collectord.client import Change, View

NUMBERS = (int, float)


def clean(text: str) -> str:
    """``text`` with everything spelt out that a terminal would obey, or show as nothing."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def shown(value: Any) -> str:
    """A value of any kind on one line: a text as it is, the rest as JSON."""
    if isinstance(value, str):
        return clean(value)
    return clean(json.dumps(wire.json_value(value), ensure_ascii=False))


def moment(microseconds: int | None) -> str:
    """A time as people write it, UTC."""
    if not microseconds:
        return "never"
    start = datetime(1970, 1, 1, tzinfo=timezone.utc)
    try:
        return f"{start + timedelta(microseconds=microseconds):%Y-%m-%d %H:%M:%S}Z"
    except OverflowError:  # a source chooses its epoch, and may choose the year 300,000
        return str(microseconds)


def table(
    title: str,
    columns: Iterable[str],
    rows: Iterable[Iterable[Any]],
    whole: Collection[str] = (),
) -> Table:
    """A table. A cell that is a Text comes as it is, and must be clean; any other is made so.

    Columns that are ``whole`` stay on one line; a narrow terminal breaks the others first.
    """
    made = Table(title=Text(clean(title), style="bold"), title_justify="left")
    cells = [list(row) for row in rows]
    for place, name in enumerate(columns):
        numeric = all(row[place] is None or isinstance(row[place], NUMBERS) for row in cells)
        justify: Any = "right" if numeric else "left"
        is_whole = name in whole
        made.add_column(Text(name), justify=justify, overflow="fold", no_wrap=is_whole)
    for row in cells:
        made.add_row(*map(_cell, row))
    return made


def _cell(value: Any) -> Text:
    return value if isinstance(value, Text) else Text("" if value is None else shown(value))


def view(key: str, uve: View) -> RenderableType:
    """A UVE: a table for each struct, and one for the proxy UVEs of each metric."""
    parts: list[RenderableType] = [Text(clean(key), style="bold reverse")]
    proxies: dict[str, list[list[Any]]] = {}
    for struct, value in uve.items():
        if algorithm := _algorithm(struct, value):
            proxies.setdefault(value["proxy"], []).append([algorithm, *_proxy_cells(value)])
        elif isinstance(value, dict):
            parts.append(table(struct, ["attribute", "value"], value.items()))
        else:
            parts.append(Text(f"{clean(struct)}: {shown(value)}"))
    for metric, rows in proxies.items():
        parts.append(table(f"of {metric}", ["algorithm", *PROXY_COLUMNS], rows))
    return Group(*parts)


PROXY_COLUMNS = ["value", "staging", "sigma", "mean", "stddev", "samples"]


def _algorithm(struct: str, value: Any) -> str:
    """The name of the algorithm if this is a proxy UVE, else ""."""
    proxy = value.get("proxy") if isinstance(value, dict) else None
    if isinstance(proxy, str) and struct.startswith("AggProxy") and struct.endswith(f"-{proxy}"):
        return struct.removesuffix(f"-{proxy}")
    return ""


def _proxy_cells(value: Mapping[str, Any]) -> Iterable[Any]:
    result = value.get("value")
    flat = dict(result) if isinstance(result, dict) else {}
    # A detector tells the last sum as ``metric``, and keeps its mean and deviation in ``state``.
    state = flat.get("state")
    flat |= {"value": flat.get("value", flat.get("metric"))}
    flat |= state if isinstance(state, dict) else {}
    if isinstance(flat.get("sigma"), float):
        flat["sigma"] = f"{flat['sigma']:.3f}"
    return map(flat.get, PROXY_COLUMNS)


def key(name: str) -> RenderableType:
    """A key alone on its line."""
    return Text(clean(name))


def lines(texts: Iterable[str]) -> RenderableType:
    """Lines as they are."""
    return Text("\n".join(map(clean, texts)))


def health(well: bool, problems: Iterable[str]) -> RenderableType:
    """Whether the collector is well; else why not, a line each."""
    return lines(["it is well"] if well else list(problems) or ["it is not well"])


def tables(answer: Mapping[str, int]) -> RenderableType:
    """The tables, and how many keys each has."""
    return table("tables", ["table", "keys"], answer.items())


def sent(result: Mapping[str, int]) -> RenderableType:
    """What became of the records that were sent."""
    return Text(", ".join(f"{count} {what}" for what, count in result.items()))


def sources(answer: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """Who reports, and how far each has come."""
    rows = [
        [
            name,
            source.get("records"),
            moment(source.get("last_seen")),
            moment(source.get("epoch")),
            source.get("seq"),
            source.get("durable"),
        ]
        for name, source in answer.items()
    ]
    return table("sources", ["source", "records", "last seen", "epoch", "seq", "durable"], rows)


def menu(answer: Mapping[str, Any]) -> RenderableType:
    """The algorithms there are, and the metrics they run on."""
    columns = ["name", "period", "timeout", "help"]
    entries = [[entry.get(column) for column in columns] for entry in answer["menu"]]
    configured = [
        [metric, " ".join(algorithms)] for metric, algorithms in answer["configured"].items()
    ]
    return Group(
        table("menu", columns, entries),
        table("configured", ["metric", "algorithms"], configured),
    )


def status(answer: Mapping[str, Any]) -> RenderableType:
    """Everything the collector tells of itself, a table for each group."""
    plain = {name: value for name, value in answer.items() if not isinstance(value, dict)}
    plain |= {name: moment(plain[name]) for name in ("start_time", "time") if name in plain}
    groups = [
        table(name, ["name", "value"], group.items())
        for name, group in answer.items()
        if isinstance(group, dict)
    ]
    return Group(table("collector", ["name", "value"], plain.items()), *groups)


def change(news: Change) -> Text:
    """A line of what has changed, and when it was heard."""
    what = "deleted" if news.deleted else shown(news.value)
    return Text.assemble(
        (f"{datetime.now():%H:%M:%S} ", "dim"),
        (f"{clean(news.key)} ", "bold"),
        (f"{clean(news.struct)} ", "cyan"),
        (what, "red" if news.deleted else ""),
    )
