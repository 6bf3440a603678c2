"""Reading UVEs: what the engine holds of a key, merged into the view that everybody is shown.

How values are merged is in ``views.py``; who asks, and what for, is in the rooms
that have a reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

from collectord import proxies, views
from collectord.engine import Engine
from collectord.views import NO_FILTERS, Filters

Structs: TypeAlias = Mapping[str, Mapping[str, Any]]
Result = TypeVar("Result")

WALKS_AT_ONCE = 2
RECORDS_AT_ONCE = 200
"""Records of one key that are merged on the event loop."""


def nothing(key: str) -> Structs:
    """No structs."""
    return {}


class Reader:
    """Reads views of one engine.

    ``own`` gives the structs that the collector adds to a key's, beside its proxy UVEs; a key that
    has nothing else is there as long as it has these.
    """

    def __init__(self, engine: Engine, own: Callable[[str], Structs] = nothing) -> None:
        self._engine = engine
        self._own = own
        # Few, so that those who walk over all keys wait for one another and not the rest for them.
        self._walks = ThreadPoolExecutor(WALKS_AT_ONCE, "walk")

    def close(self) -> None:
        """Begin no more walks; what is under way ends by itself."""
        self._walks.shutdown(wait=False, cancel_futures=True)

    def view(self, key: str, filters: Filters = NO_FILTERS) -> views.View | None:
        """The merged view of a key, or None where there is no such key."""
        return self._merged(key, filters, self._own(key))

    def is_large(self, key: str) -> bool:
        """Whether so many sources tell of the key that others would wait for it."""
        return self._engine.record_count(key) > RECORDS_AT_ONCE

    async def fair_view(self, key: str, filters: Filters = NO_FILTERS) -> views.View | None:
        """``view``, on a thread where so many sources tell of the key that others would wait."""
        if not self.is_large(key):
            return self.view(key, filters)
        return await self.walk(self._merged, key, filters, self._own(key))

    def _merged(self, key: str, filters: Filters, own: Structs) -> views.View | None:
        found = self._engine.read(key)
        if found is None and not own:
            return None
        records, states = found or ([], [])
        structs: dict[str, Mapping[str, Any]] = {
            name: proxies.struct_value(state)
            for state in states
            if filters.wants_struct(name := proxies.struct_name(state))
        }
        return views.merge(records, self._engine.aggtypes(), {**structs, **own}, filters)

    async def walk(self, walk: Callable[..., Result], *arguments: Any) -> Result:
        """What takes long, on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._walks, walk, *arguments)
