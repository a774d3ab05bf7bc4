"""What a finding is: how bad, by which figures, why, what to do, and what it changes for plans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SEVERITIES = ("error", "caution", "info")
# What might be better, or is as somebody wants it: also on a rig with which nothing is wrong.
HINT = "info"


@dataclass(frozen=True)
class Evidence:
    """A figure that a finding was judged by.

    One that is `passing` is another at each look (bytes in use, a temperature): a finding that is
    known stays known when it changes.
    """

    name: str
    text: str
    passing: bool = False


class Quantity(StrEnum):
    """What plans count with, and a finding may hold down."""

    LINK_GBPS = "link_gbps"
    MEMORY_GBPS = "memory_gbps"
    # Held in its memory by programs that are not Omni's.
    OTHERS_BYTES = "others_bytes"
    # The part of its full clock that a card calculates at.
    CLOCK_SHARE = "clock_share"


# The key of main memory, where cards have theirs.
HOST = "host"


@dataclass(frozen=True)
class Held:
    """A quantity of a card (or of HOST) as it is, and as it would be with the finding mended."""

    card: str
    quantity: Quantity
    now: float
    mended: float


@dataclass(frozen=True)
class Finding:
    """`severity` is one of SEVERITIES; `subject` is what it is about: a card's key, an engine's
    name."""

    code: str
    severity: str
    title: str
    text: str
    fix: str = ""
    cause: str = ""
    subject: str = ""
    evidence: tuple[Evidence, ...] = ()
    held: tuple[Held, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Another one as soon as what it was judged by has changed."""
        lasting = [(each.name, each.text) for each in self.evidence if not each.passing]
        said: list[Any] = [self.code, self.subject, lasting]
        if not self.evidence:
            said.append(self.text)
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]

    @property
    def anchor(self) -> str:
        """Its place on a page: one for each code and subject."""
        said = f"{self.code} {self.subject}"
        return f"finding-{hashlib.sha256(said.encode()).hexdigest()[:12]}"


def is_wrong(findings: Iterable[Finding]) -> bool:
    """Whether one of them is more than a hint."""
    return any(finding.severity != HINT for finding in findings)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; among equals as they came."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
