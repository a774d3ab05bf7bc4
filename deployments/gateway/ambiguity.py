"""In how many ways a grammar or pattern can read the same few characters.

An engine that asks whether a token may come next follows every way to read it. Where a loop can
read its text in two ways, these double with each character: a token of 16 is then read in 65,536
ways, and the engine does nothing else meanwhile. So the ways are counted here, for texts as long as
tokens are. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from deployments.gateway.grammar_text import Group, Ranges, TooMuch

TOKEN_CHARACTERS = 16
MOST_WAYS = 500
MOST_BARE_REPETITIONS = 2
MOST_EMPTY = 16
MOST_STATES = 20_000
DEEPEST = 100
# Steps that are looked at before a text counts as too complex; a fraction of a second.
MOST_STEPS = 250_000
# Of a repetition so many are written out; what is longer is looked at as one without end.
WRITTEN_OUT = 4
# Of the texts that can be read, only those that can be read in most ways are followed.
FOLLOWED = 4
CHARACTERS_TRIED = 24


def check_ways(rules: Mapping[str, Group], root: str) -> None:
    """Raises TooMuch when some text of a token's length can be read in too many ways."""
    machine = _Machine(rules)
    machine.build(Group(rule=root), 0, 0, _Place({}, frozenset()))
    for start in dict.fromkeys(machine.starts):
        machine.follow(start)


@dataclass(frozen=True)
class _Place:
    """Where a part stands: the rules that are being put in, each with its first state; and those of
    them that have nothing behind this part."""

    rules: Mapping[str, int]
    last_in: frozenset[str]

    def in_rule(self, rule: str, start: int) -> _Place:
        return _Place({**self.rules, rule: start}, self.last_in | {rule})

    def before_others(self) -> _Place:
        return _Place(self.rules, frozenset())


class _Machine:
    """A finite automaton: states with a character to read, joined by empty steps."""

    def __init__(self, rules: Mapping[str, Group]) -> None:
        self.rules = rules
        self.empty: list[list[int]] = [[]]
        self.reads: dict[int, tuple[Ranges, int]] = {}
        # States before repetitions: where nothing repeats, ways do not multiply.
        self.starts: list[int] = []
        self.steps = 0
        # Ways that were followed, and over how many characters.
        self.followed: dict[frozenset[tuple[int, int]], int] = {}
        self._reached: dict[int, list[int]] = {}

    # --- building ---------------------------------------------------------------------------------
    def state(self) -> int:
        if len(self.empty) >= MOST_STATES:
            raise TooMuch(
                f"grows to more than {MOST_STATES} parts when its rules are put in"
            )
        self.empty.append([])
        return len(self.empty) - 1

    def join(self, start: int, end: int) -> None:
        self.empty[start].append(end)

    def build(self, part: Group, start: int, depth: int, place: _Place) -> int:
        """Adds a part behind a state; returns the state behind the part."""
        if depth > DEEPEST:
            raise TooMuch(f"nests groups and rules more than {DEEPEST} deep")
        if (part.low, part.high) == (1, 1):
            return self.once(part, start, depth, place)
        return self.repeated(part, start, depth, place)

    def repeated(self, part: Group, start: int, depth: int, place: _Place) -> int:
        """As engines do it: x{2,4} is x x (x (x)?)?, and x{2,} is x x followed by a loop."""
        if _bare_repetitions(part) > MOST_BARE_REPETITIONS:
            raise TooMuch("repeats a repetition of a repetition")
        self.starts.append(start)
        end = self.state()
        at = start
        has_loop = part.high is None or part.high > WRITTEN_OUT
        if part.high is None:
            copies = min(part.low, WRITTEN_OUT)
        else:
            copies = min(part.high, WRITTEN_OUT)
        for count in range(copies):
            if count >= part.low:
                self.join(at, end)
            is_last = count == copies - 1 and not has_loop
            at = self.once(part, at, depth, place if is_last else place.before_others())
        self.join(at, end)
        if has_loop:
            self.join(self.loop(part, at, depth, place), end)
        return end

    def loop(self, part: Group, start: int, depth: int, place: _Place) -> int:
        """Any number of times; returns the state behind one."""
        inside = self.state()
        self.starts.append(inside)
        self.join(start, inside)
        behind = self.once(part, inside, depth, place.before_others())
        if part.low + (part.high or 0) > MOST_EMPTY and self.is_joined(inside, behind):
            raise TooMuch(f"repeats more than {MOST_EMPTY} times what may be empty")
        self.join(behind, inside)
        return behind

    def is_joined(self, start: int, end: int) -> bool:
        """Whether nothing need be read between the two."""
        waiting = [start]
        been = {start}
        while waiting:
            fresh = [after for after in self.empty[waiting.pop()] if after not in been]
            been.update(fresh)
            waiting += fresh
        return end in been

    def once(self, part: Group, start: int, depth: int, place: _Place) -> int:
        if part.rule:
            return self.call(part.rule, start, depth, place)
        end = self.state()
        if part.ranges:
            reading = self.state()
            self.join(start, reading)
            self.reads[reading] = (part.ranges, end)
            return end
        for sequence in part.alternatives:
            at = start
            for inner in sequence:
                here = place if inner is sequence[-1] else place.before_others()
                at = self.build(inner, at, depth + 1, here)
            self.join(at, end)
        return end

    def call(self, rule: str, start: int, depth: int, place: _Place) -> int:
        """A rule that ends with itself is a loop; one that holds itself elsewhere is looked at
        once."""
        if rule in place.last_in:
            self.join(start, place.rules[rule])
            self.starts.append(place.rules[rule])
            return self.state()
        if rule in place.rules or rule not in self.rules:
            return self.state()
        inside = self.state()
        self.join(start, inside)
        return self.build(
            self.rules[rule], inside, depth + 1, place.in_rule(rule, inside)
        )

    # --- following --------------------------------------------------------------------------------
    def follow(self, start: int) -> None:
        """Reads on from a state the texts that can be read in most ways."""
        texts = [Counter(dict.fromkeys(self.reached(start), 1))]
        for left in range(TOKEN_CHARACTERS, 0, -1):
            found = [
                after for ways in texts for after in self.after_one_character(ways)
            ]
            texts = sorted(self.unknown(found, left), key=lambda ways: -ways.total())[
                :FOLLOWED
            ]
            if texts and texts[0].total() > MOST_WAYS:
                raise TooMuch("can read the same text in too many ways")

    def unknown(self, found: list[Counter[int]], left: int) -> list[Counter[int]]:
        """Those from where nobody has read on as far as it goes from here."""
        fresh = []
        for ways in found:
            key = frozenset(ways.items())
            if self.followed.get(key, 0) < left:
                self.followed[key] = left
                fresh.append(ways)
        return fresh

    def after_one_character(self, ways: Counter[int]) -> list[Counter[int]]:
        """What can be read next, for each character that makes a difference."""
        found = []
        for character in self.characters(ways):
            after: Counter[int] = Counter()
            for state, count in ways.items():
                ranges, behind = self.reads[state]
                if _holds(ranges, character):
                    for reading in self.reached(behind):
                        after[reading] += count
            self.count(len(ways) + len(after))
            if after:
                found.append(after)
        return found

    def characters(self, ways: Counter[int]) -> list[int]:
        beginnings: Counter[int] = Counter()
        for state in ways:
            beginnings.update(low for low, _ in self.reads[state][0])
        self.count(len(ways))
        return [character for character, _ in beginnings.most_common(CHARACTERS_TRIED)]

    def reached(self, start: int) -> list[int]:
        """The states that read, reached by empty steps."""
        if (known := self._reached.get(start)) is not None:
            return known
        found = []
        waiting = [start]
        been = {start}
        while waiting:
            state = waiting.pop()
            if state in self.reads:
                found.append(state)
            fresh = [after for after in self.empty[state] if after not in been]
            been.update(fresh)
            waiting += fresh
        self.count(len(been))
        self._reached[start] = found
        return found

    def count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise TooMuch("is too complex to be checked")


def _bare_repetitions(part: Group) -> int:
    """How many repetitions stand within each other with nothing beside them, as in ((x*)*)*."""
    count = 0
    while True:
        count += (part.low, part.high) not in ((1, 1), (0, 1))
        if len(part.alternatives) != 1 or len(part.alternatives[0]) != 1:
            return count
        part = part.alternatives[0][0]


def _holds(ranges: Ranges, character: int) -> bool:
    if len(ranges) == 1:
        return ranges[0][0] <= character <= ranges[0][1]
    ordered = sorted(ranges)
    at = bisect_right(ordered, (character, 1 << 30)) - 1
    return at >= 0 and ordered[at][0] <= character <= ordered[at][1]
