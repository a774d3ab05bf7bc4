"""The history page, the points that it draws, and the file."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import pytest
from django.test import Client

from gpus.buckets import save_buckets
from gpus.charts import chart_of, charts_of
from gpus.discovery import save_rig
from gpus.marks import mark
from gpus.models import HistoryMark, Host
from gpus.rollup import Bucket
from gpus.sample import CardIdentity, NvmlState

NOW = 1_790_000_000 // 600 * 600
Kind = HistoryMark.Kind


def kept(host: Host, key: str, metric: str, *means: float) -> None:
    """Ten seconds each, the last one a moment before NOW."""
    begin_s = NOW - 10 * len(means)
    save_buckets(
        host,
        [
            Bucket(key, metric, begin_s + 10 * n, mean - 1, mean, mean + 1, 20)
            for n, mean in enumerate(means)
        ],
        {"deployment:7": "coder"},
    )


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpus.buckets.time.time", lambda: float(NOW))


def points(
    client: Client, key: str, since_s: int, until_s: int = NOW
) -> dict[str, object]:
    query = {"subject": key, "from": since_s, "to": until_s}
    answer = client.get("/history/points.json", query)
    assert answer.status_code == 200, answer.content
    found: dict[str, object] = answer.json()
    return found


# --- the page -------------------------------------------------------------------------------------
def test_a_page_without_history_says_so(viewer: Client) -> None:
    page = viewer.get("/history/")
    assert page.status_code == 200 and "Nothing kept yet" in page.content.decode()


def test_every_subject_can_be_chosen_by_its_name(viewer: Client, host: Host) -> None:
    save_rig(host, NvmlState("ok"), (CardIdentity(0, "GPU-1", "RTX 5090"),))
    for key in ("GPU-1", "host", "deployment:7"):
        kept(host, key, "x", 1)
    page = viewer.get("/history/?subject=deployment:7").content.decode()
    for text in ("RTX 5090", "coder", "Host", "<h1>coder</h1>"):
        assert text in page, text
    assert page.index("RTX 5090") < page.index('value="deployment:7"')
    assert "Time to first token (TTFT), ms" in page


def test_who_asks_for_none_in_particular_sees_a_card(
    viewer: Client, host: Host
) -> None:
    kept(host, "host", "cpu_percent", 1)
    kept(host, "RPC0", "utilisation_percent", 1)
    assert "<h1>RPC0</h1>" in viewer.get("/history/").content.decode()


def test_of_an_unknown_subject_nothing_is_kept(viewer: Client, host: Host) -> None:
    kept(host, "host", "cpu_percent", 1)
    page = viewer.get("/history/?subject=<b>").content.decode()
    assert "Nothing kept yet" in page and 'value="host"' in page and "<b>" not in page
    answer = viewer.get(f"/history/points.csv?subject=x&from={NOW - 600}&to={NOW}")
    assert answer.status_code == 404


def test_a_cards_page_has_its_charts(viewer: Client, host: Host) -> None:
    save_rig(host, NvmlState("ok"), (CardIdentity(0, "GPU-1", "RTX 5090"),))
    kept(host, "GPU-1", "fan_percent", 1)
    page = viewer.get("/cards/GPU-1/").content.decode()
    for metric in ("utilisation_percent", "power_watts", "fan_percent"):
        assert f'data-metric="{metric}"' in page, metric


@pytest.mark.parametrize(
    ("metric", "title", "unit", "divide", "top"),
    [
        ("utilisation_percent", "Utilisation", "%", 1, 100),
        ("memory_used_bytes", "Memory used", "GiB", 1 << 30, None),
        ("memory_clock_mhz", "Memory clock", "MHz", 1, None),
        ("output_tps", "Decode (generation)", "tokens/s", 1, None),
        ("requests", "Requests running", "", 1, None),
        ("something_new", "Something new", "", 1, None),
    ],
)
def test_a_metric_is_drawn_by_its_name(
    metric: str, title: str, unit: str, divide: float, top: float | None
) -> None:
    found = chart_of(metric)
    assert (found.title, found.unit, found.divide, found.top) == (
        title,
        unit,
        divide,
        top,
    )


def test_what_a_kind_is_known_to_have_comes_first() -> None:
    names = [each.metric for each in charts_of("host", ["swap_bytes", "cpu_percent"])]
    assert names == ["cpu_percent", "memory_used_bytes", "swap_bytes"]


# --- points ---------------------------------------------------------------------------------------
def test_points_come_oldest_first_with_range_and_gaps(
    viewer: Client, host: Host
) -> None:
    kept(host, "RPC0", "utilisation_percent", 1, 2, 3)
    kept(host, "RPC0", "power_watts", 100.00049)
    body = points(viewer, "RPC0", NOW - 600)
    assert body["step_s"] == 10 and body["starts"] == [NOW - 30, NOW - 20, NOW - 10]
    assert body["metrics"] == {
        "utilisation_percent": {
            "minimum": [0, 1, 2],
            "mean": [1, 2, 3],
            "maximum": [2, 3, 4],
        },
        "power_watts": {
            "minimum": [None, None, pytest.approx(99, abs=0.01)],
            "mean": [None, None, 100.0],
            "maximum": [None, None, pytest.approx(101, abs=0.01)],
        },
    }


def test_a_longer_span_comes_in_longer_steps(viewer: Client, host: Host) -> None:
    kept(host, "RPC0", "utilisation_percent", *[5.0] * 720)
    day = points(viewer, "RPC0", NOW - 24 * 3600)
    year = points(viewer, "RPC0", NOW - 365 * 24 * 3600)
    assert day["step_s"] == 300 and len(day["starts"]) in (24, 25)  # type: ignore[arg-type]
    assert year["step_s"] == 24 * 3600 and len(year["starts"]) in (1, 2)  # type: ignore[arg-type]


def test_a_subject_of_which_nothing_is_kept_has_no_points(
    viewer: Client, host: Host
) -> None:
    body = points(viewer, "GPU-9", NOW - 600)
    assert (body["starts"], body["metrics"], body["marks"]) == ([], {}, [])


@pytest.mark.parametrize("key", ["\0", "'", "x" * 5000, "<script>", ""])
def test_a_subject_that_cannot_be_has_no_points(
    viewer: Client, host: Host, key: str
) -> None:
    assert points(viewer, key, NOW - 600)["starts"] == []


@pytest.mark.parametrize(
    "query",
    [
        "",
        "from=1",
        "to=1",
        f"from={NOW}&to={NOW}",
        f"from={NOW}&to={NOW - 600}",
        f"from={NOW - 59}&to={NOW}",
        f"from=1&to={NOW}",
        f"from=-1&to={NOW}",
        f"from=ten&to={NOW}",
        "from=9223372036854775000&to=9223372036854775807",
    ],
)
def test_a_span_that_is_none_is_refused(viewer: Client, host: Host, query: str) -> None:
    for kind in ("json", "csv"):
        answer = viewer.get(f"/history/points.{kind}?subject=RPC0&{query}")
        assert answer.status_code == 400


def test_a_stranger_sees_nothing(client: Client, host: Host) -> None:
    for path in ("/history/", "/history/points.json", "/history/points.csv"):
        assert client.get(path).status_code in (302, 401)


# --- marks ----------------------------------------------------------------------------------------
def test_marks_come_with_the_points_newest_first(viewer: Client, host: Host) -> None:
    def marked(kind: Kind, subject: str, text: str, age_s: int) -> None:
        mark(host, kind, text, subject, at=datetime.fromtimestamp(NOW - age_s, UTC))

    marked(Kind.STARTED, "deployment:7", "coder started", 300)
    marked(Kind.CRASHED, "deployment:8", "other crashed", 200)
    marked(Kind.RUN, "", "Benchmark 1 begins", 100)
    marked(Kind.STOPPED, "deployment:7", "too old", 900)

    def texts(key: str) -> list[str]:
        found = points(viewer, key, NOW - 600)["marks"]
        return [each["text"] for each in found]  # type: ignore[attr-defined]

    everything = ["Benchmark 1 begins", "other crashed", "coder started"]
    assert texts("RPC0") == texts("host") == everything
    assert texts("deployment:7") == ["Benchmark 1 begins", "coder started"]


# --- the file -------------------------------------------------------------------------------------
def test_the_file_has_a_line_for_each_metric_and_point(
    viewer: Client, host: Host
) -> None:
    kept(host, "RPC0", "utilisation_percent", 1, 2)
    kept(host, "RPC0", "=power", 7)
    answer = viewer.get(f"/history/points.csv?subject=RPC0&from={NOW - 600}&to={NOW}")
    assert "attachment" in answer["Content-Disposition"]
    text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
    head, *lines = csv.reader(io.StringIO(text))
    assert head == ["time", "metric", "minimum", "mean", "maximum", "samples"]
    at = [datetime.fromtimestamp(NOW - age, UTC) for age in (20, 10)]
    first, second = (each.strftime("%Y-%m-%dT%H:%M:%SZ") for each in at)
    assert lines == [
        [first, "utilisation_percent", "0.0", "1.0", "2.0", "20"],
        [second, "utilisation_percent", "1.0", "2.0", "3.0", "20"],
        [second, "'=power", "6.0", "7.0", "8.0", "20"],
    ]
