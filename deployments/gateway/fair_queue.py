"""A queue in which nobody waits for all that somebody else has sent: order of arrival for each key,
and the keys take turns.

Pure, like the decisions beside it: how many may pass, and when to ask again.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import ceil
from statistics import median
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

# So many more than an engine has slots are sent to it, so that a slot that gets free finds its next
# request already there.
LEAST_SPARE = 2
# Without any load to go by.
USUAL_LOAD_S = 30.0
SOONEST_RETRY_S = 2
LATEST_RETRY_S = 900


@dataclass(order=True)
class _Returned(Generic[T]):
    number: int
    item: T = field(compare=False)


class FairQueue(Generic[T]):
    """Items wait under the key of whoever sent them; `next` takes them by turns between keys."""

    def __init__(self) -> None:
        # The key whose turn it is stands first.
        self._keys: dict[str, deque[T]] = {}
        # Those that were taken and could not pass: before all others, in the order they had.
        self._returned: list[_Returned[T]] = []
        self._taken = 0
        self._numbers: dict[T, int] = {}

    def __len__(self) -> int:
        waiting = sum(len(items) for items in self._keys.values())
        return waiting + len(self._returned)

    def __iter__(self) -> Iterator[T]:
        returned = (each.item for each in self._returned)
        return chain(returned, *self._keys.values())

    def join(self, item: T, key: str) -> None:
        self._keys.setdefault(key, deque()).append(item)

    def next(self) -> T | None:
        """Takes whoever is next; None when nobody waits."""
        if self._returned:
            return self._number(self._returned.pop(0).item)
        if not self._keys:
            return None
        key = next(iter(self._keys))
        items = self._keys.pop(key)
        item = items.popleft()
        if items:
            self._keys[key] = items
        return self._number(item)

    def _number(self, item: T) -> T:
        self._numbers.setdefault(item, self._taken)
        self._taken += 1
        return item

    def put_back(self, item: T) -> None:
        """It was taken and could not pass: its place is before those that were taken after it."""
        insort(self._returned, _Returned(self._numbers[item], item))

    def leave(self, item: T) -> None:
        """It waits no longer, taken or not."""
        self._numbers.pop(item, None)
        self._returned = [each for each in self._returned if each.item != item]
        for key, items in self._keys.items():
            if item in items:
                items.remove(item)
                if not items:
                    del self._keys[key]
                return

    def position(self, item: T) -> int:
        """1 is next; 0 does not wait."""
        for place, each in enumerate(self._returned, 1):
            if each.item == item:
                return place
        found = self._found(item)
        if found is None:
            return 0
        own_key, before = found
        place = len(self._returned) + before + 1
        # Of the keys whose turn comes sooner, one more has passed.
        limit = before + 1
        for key, items in self._keys.items():
            if key == own_key:
                limit = before
                continue
            place += min(len(items), limit)
        return place

    def _found(self, item: T) -> tuple[str, int] | None:
        """Its key, and how many of that wait before it."""
        for key, items in self._keys.items():
            for before, each in enumerate(items):
                if each == item:
                    return key, before
        return None


# --- decisions ------------------------------------------------------------------------------------
def most_inside(slots: int, stages: int = 1) -> int | None:
    """How many requests may be with an engine; None without a limit, where its slots are not known.

    `stages` are the instances that a request passes one after the other.
    """
    if not slots:
        return None
    return slots * stages + max(LEAST_SPARE, slots // 4)


@dataclass(frozen=True)
class LoadTimes:
    """How long a deployment took to load lately, and since when it loads now, if it does."""

    recent_s: Sequence[float] = ()
    began_s: float | None = None

    @property
    def usual_s(self) -> float | None:
        return median(self.recent_s) if self.recent_s else None

    def percent(self, now_s: float) -> int | None:
        """How far it is, by how long it took before; None where that cannot be told."""
        if self.began_s is None or not self.usual_s:
            return None
        share = max(0.0, now_s - self.began_s) / self.usual_s
        return min(99, int(100 * share))

    def retry_after_s(self, now_s: float, *, is_ready: bool) -> int:
        """When somebody for whom there is no place should ask again."""
        if is_ready:
            return SOONEST_RETRY_S
        usual_s = self.usual_s or USUAL_LOAD_S
        elapsed_s = 0.0 if self.began_s is None else now_s - self.began_s
        left_s = ceil(usual_s - elapsed_s)
        return max(SOONEST_RETRY_S, min(left_s, LATEST_RETRY_S))
