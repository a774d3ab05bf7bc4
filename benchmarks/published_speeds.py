"""Predicted speeds beside published ones, by card and model.

Nothing is measured here. Run: python benchmarks/published_speeds.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.planning.published_speeds import compared, line, summary  # noqa: E402


def main() -> None:
    figures = compared()
    head = f"{'card':24} {'model':24} {'rate':19} {'predicted':>9} {'published':>9} {'error':>6}"
    print(head)
    for figure in sorted(figures, key=lambda each: (each.rate, each.row.card)):
        print(line(figure))
    for rate in ("decode", "prefill"):
        print()
        for is_held_out in (False, True):
            these = [
                figure
                for figure in figures
                if figure.rate == rate and figure.row.is_held_out == is_held_out
            ]
            kind = "held out" if is_held_out else "fitted to"
            print(f"{rate}, {kind}: {summary(these)}")


if __name__ == "__main__":
    main()
