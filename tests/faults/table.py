"""What a row of the fault table says, and the table of what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARTIFACT = Path(__file__).resolve().parents[1] / "artifacts" / "faults.txt"


@dataclass(frozen=True)
class Ends:
    """What is true once the fault has been dealt with.

    `code` and `says` are what the deployment's page showed of it at any moment. `is_same`: the
    process that ran before the fault still runs and was never started again; None where either is
    right.
    """

    state: str = "ready"
    is_same: bool | None = None
    restarts: int | None = None
    code: str = ""
    says: tuple[str, ...] = ()


AGAIN = Ends(is_same=False)
UNTOUCHED = Ends(is_same=True, restarts=0)


@dataclass(frozen=True)
class Row:
    """One fault: `strike` is done to `part` while the deployment is in the state `at`.

    `engine` are the modes of a stand-in, one for each start, the last for all further ones; none:
    the real engine. `mend` takes the cause away after the end was reached; a Start must then bring
    it to ready.
    """

    part: str
    fault: str
    at: str
    strike: Callable[[Any], None]
    ends: Ends = AGAIN
    engine: tuple[str, ...] = ()
    on: str = "CPU"
    within_s: float = 30.0
    mend: Callable[[Any], None] | None = None

    @property
    def name(self) -> str:
        return f"{self.part}: {self.fault}, {self.at}".replace(" ", "_")


@dataclass
class Measured:
    """The rows as they came out, printed at the end of the session."""

    lines: list[tuple[str, str, str, str, str]] = field(default_factory=list)

    def add(self, row: Row, reached: str, took_s: float) -> None:
        self.lines.append((row.part, row.fault, row.at, reached, f"{took_s:.2f}"))

    def text(self) -> str:
        head = ("part", "fault", "while", "ends", "seconds")
        rows = [head, *sorted(self.lines)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            ).rstrip()
            for row in rows
        ]
        return "\n".join(lines) + "\n"
