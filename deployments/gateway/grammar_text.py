"""Grammars (GBNF) and patterns (regular expressions) as a tree of parts.

Linear in the text, bounded in depth. Pure.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

LAST_CHARACTER = 0x10FFFF
ANY = ((0, LAST_CHARACTER),)
Ranges = tuple[tuple[int, int], ...]
_BOUNDS = re.compile(r"\s*(\d*)\s*(,?)\s*(\d*)\s*\}")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_RULE = re.compile(r"(?:\s|#[^\n]*\n)*([A-Za-z0-9_-]+)[ \t]*::=")
_CLASSES: dict[str, Ranges] = {
    "d": ((48, 57),),
    "w": ((48, 57), (65, 90), (95, 95), (97, 122)),
    "s": ((9, 13), (32, 32)),
}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}


class TooMuch(Exception):
    """Says which limit a text exceeds, to be put behind the name of its field."""


@dataclass(frozen=True)
class TextLimits:
    depth: int
    parts: int
    repeats: int


@dataclass
class Group:
    """A group of alternatives, each a sequence; or a call of `rule`; else one character out of
    `ranges`."""

    alternatives: list[list[Group]] = field(default_factory=list)
    rule: str = ""
    ranges: Ranges = ()
    low: int = 1
    high: int | None = 1  # None: without end
    is_lookaround: bool = False


def grammar_rules(text: str, limits: TextLimits) -> dict[str, Group]:
    """The rules of a grammar in llama.cpp's notation. Raises TooMuch."""
    return _GrammarReader(text, limits).rules()


def pattern_part(text: str, limits: TextLimits) -> Group:
    """A regular expression as schemas have them. Raises TooMuch."""
    return _PatternReader(text, limits).group(0)


class _Reader(ABC):
    """What is not understood counts as one character: the engine will refuse it."""

    def __init__(self, text: str, limits: TextLimits) -> None:
        self.text = text
        self.limits = limits
        self.at = 0
        self.parts = 0

    def group(self, depth: int) -> Group:
        """Up to the parenthesis that closes it, or the end."""
        if depth > self.limits.depth:
            raise TooMuch(f"nests groups more than {self.limits.depth} deep")
        group = Group(alternatives=[[]])
        while self.at < len(self.text) and not self.is_behind(depth):
            sign = self.text[self.at]
            self.at += 1
            if sign == ")":
                break
            sequence = group.alternatives[-1]
            if sign == "|":
                group.alternatives.append([])
            elif sign in "*+?{":
                self.repeat(sequence, sign)
            else:
                self.add(sequence, sign, depth)
        return group

    def is_behind(self, depth: int) -> bool:
        """Whether the text of this rule has ended."""
        return False

    @abstractmethod
    def add(self, sequence: list[Group], sign: str, depth: int) -> None:
        """Takes what begins with this sign."""

    def put(self, sequence: list[Group], *parts: Group) -> None:
        sequence.extend(parts)
        self.parts += len(parts)
        if self.parts > self.limits.parts:
            raise TooMuch(f"has more than {self.limits.parts} parts")

    def repeat(self, sequence: list[Group], sign: str) -> None:
        low, high = self.bounds(sign)
        if max(low, high or 0) > self.limits.repeats:
            raise TooMuch(f"repeats a part more than {self.limits.repeats} times")
        if high is not None and low > high:
            # llama-server never returns from it.
            raise TooMuch(f"repeats a part at least {low} and at most {high} times")
        if not sequence or sequence[-1].is_lookaround:
            # llama-server has crashed over it.
            hint = r" (a brace is written \{)" if sign == "{" else ""
            raise TooMuch(f"has a repetition of nothing{hint}")
        last = sequence[-1]
        if (last.low, last.high) != (1, 1):
            last = Group(alternatives=[[last]])  # x*+ repeats a repetition
        last.low = low
        last.high = high
        sequence[-1] = last

    def bounds(self, sign: str) -> tuple[int, int | None]:
        if sign != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        found = _BOUNDS.match(self.text[self.at : self.at + 60])
        if found is None:
            return 1, 1
        self.at += found.end()
        low = int(found[1] or 0)
        if found[3]:
            return low, int(found[3])
        return low, None if found[2] else low

    def character(self, sign: str) -> str:
        """The character that begins with this sign, an escape read to its end."""
        if sign != "\\" or self.at >= len(self.text):
            return sign
        kind = self.text[self.at]
        self.at += 1
        digits = {"x": 2, "u": 4, "U": 8}.get(kind, 0)
        if digits and (
            found := re.match(r"[0-9a-fA-F]+", self.text[self.at : self.at + digits])
        ):
            self.at += found.end()
            return chr(min(int(found[0], 16), LAST_CHARACTER))
        return _ESCAPES.get(kind, kind)

    def character_class(self) -> Ranges:
        """Behind an opening bracket, up to the closing one."""
        negated = self.text.startswith("^", self.at)
        self.at += negated
        ranges: list[tuple[int, int]] = []
        while self.at < len(self.text) and self.text[self.at] != "]":
            named = self.named_class(self.text[self.at])
            if named:
                ranges += named
                continue
            low = self.next_character()
            high = low
            if self.text.startswith("-", self.at) and not self.text.startswith(
                "-]", self.at
            ):
                self.at += 1
                if self.at < len(self.text):
                    high = self.next_character()
                else:
                    high = low
            if high < low:
                raise TooMuch(f"has the range {low}-{high}, which holds nothing")
            ranges.append((ord(low), ord(high)))
        self.at += 1
        if negated:
            return _complement(ranges)
        return tuple(ranges)

    def next_character(self) -> str:
        self.at += 1
        return self.character(self.text[self.at - 1])

    def named_class(self, sign: str) -> Ranges:
        """\\d, \\w, \\s and their opposites; empty for anything else."""
        kind = self.text[self.at + 1 : self.at + 2] if sign == "\\" else ""
        ranges = _CLASSES.get(kind.lower(), ())
        if not ranges:
            return ()
        self.at += 2
        if kind.isupper():
            return _complement(list(ranges))
        return ranges


class _PatternReader(_Reader):
    def add(self, sequence: list[Group], sign: str, depth: int) -> None:
        if sign == "(":
            is_lookaround = self.skip_kind_of_group()
            group = self.group(depth + 1)
            group.is_lookaround = is_lookaround
            return self.put(sequence, group)
        if sign == "[":
            return self.put(sequence, Group(ranges=self.character_class()))
        if sign == ".":
            return self.put(sequence, Group(ranges=ANY))
        if sign in "^$":
            return None
        self.at -= 1
        ranges = self.named_class(sign)
        if not ranges:
            code = ord(self.next_character())
            ranges = ((code, code),)
        return self.put(sequence, Group(ranges=ranges))

    def skip_kind_of_group(self) -> bool:
        """(?: and its like say what a group is for; True for one that only looks ahead or back."""
        if not self.text.startswith("?", self.at):
            return False
        begin = self.at
        self.at += 1
        while self.at < len(self.text) and self.text[self.at] in "<>:=!P":
            self.at += 1
        kind = self.text[begin : self.at]
        return "=" in kind or "!" in kind


class _GrammarReader(_Reader):
    def rules(self) -> dict[str, Group]:
        found: dict[str, Group] = {}
        while rule := _RULE.match(self.text, self.at):
            self.at = rule.end()
            found[rule[1]] = self.group(0)
        return found

    def is_behind(self, depth: int) -> bool:
        """A rule ends where the next one begins; within parentheses lines may break."""
        before = self.text[self.at - 1] if self.at else "\n"
        return (
            depth == 0
            and before == "\n"
            and _RULE.match(self.text, self.at) is not None
        )

    def add(self, sequence: list[Group], sign: str, depth: int) -> None:
        if sign.isspace():
            return None
        if sign == "#":
            return self.skip_line()
        if sign == "(":
            return self.put(sequence, self.group(depth + 1))
        if sign == "[":
            return self.put(sequence, Group(ranges=self.character_class()))
        if sign == ".":
            return self.put(sequence, Group(ranges=ANY))
        if sign == '"':
            return self.put(sequence, Group(alternatives=[self.literal()]))
        name = _NAME.match(self.text, self.at - 1)
        if name:
            self.at = name.end()
            return self.put(sequence, Group(rule=name[0]))
        return self.put(sequence, Group(ranges=ANY))

    def skip_line(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def literal(self) -> list[Group]:
        characters: list[Group] = []
        while self.at < len(self.text) and self.text[self.at] != '"':
            code = ord(self.next_character())
            characters.append(Group(ranges=((code, code),)))
        self.at += 1
        return characters


def _complement(ranges: list[tuple[int, int]]) -> Ranges:
    found = []
    begin = 0
    for low, high in sorted(ranges):
        if low > begin:
            found.append((begin, low - 1))
        begin = max(begin, high + 1)
    if begin <= LAST_CHARACTER:
        found.append((begin, LAST_CHARACTER))
    return tuple(found)
