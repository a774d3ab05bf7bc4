"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from omni import units


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (units.bytes_text, None, "N/A"),
        (units.bytes_text, 0, "0 B"),
        (units.bytes_text, 1536, "1.5 KiB"),
        (units.bytes_text, 98362432, "93.8 MiB"),
        (units.bytes_text, 97887 << 20, "95.6 GiB"),
        (units.count_text, 134515008, "135M"),
        (units.count_text, 671e9, "671B"),
        (units.tps_text, 48.94, "48.9 tokens/s"),
        (units.tps_text, None, "N/A"),
        (units.ms_text, 12.345, "12.3 ms"),
        (units.ms_text, 1500, "1.5 s"),
        (units.ms_text, 90_000, "1 min 30 s"),
        (units.ms_text, 7_260_000, "2 h 1 min"),
        (units.percent_text, 12.6, "13 %"),
        (units.celsius_text, None, "N/A"),
        (units.gbps_text, 63.02, "63 GB/s"),
    ],
)
def test_text_of(
    write: Callable[[float | None], str], value: float | None, expected: str
) -> None:
    assert write(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 PB"),
        (384 << 30, "384 GiB"),
        (24_000_000_000, "24 GB"),
        (1536 << 20, "1.5 GiB"),
        (12_345, "12.345 KB"),
        (412_316_860_417, "412316.860417 MB"),
        (999_999_999_999_999, "999999999.999999 MB"),
    ],
)
def test_the_exact_text_of_bytes_reads_back(value: int, expected: str) -> None:
    assert units.exact_bytes_text(value) == expected
    assert units.parse_bytes(expected) == value
