"""Prometheus itself: promtool on the real output, a real server that scrapes it, the dashboard."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from deployments.gateway import kv_transfer_state
from deployments.models import (
    Alert,
    ApiKey,
    Deployment,
    Engine,
    GatewayRequest,
    Instance,
)
from deployments.services.card_metrics import CARDS
from deployments.services.history_marks import subject_of
from deployments.services.load_metrics import LOADS
from deployments.services.request_totals import add_up
from deployments.services.scrape import scrape_token_make
from gpus.buckets import save_buckets
from gpus.models import Gpu, Host
from gpus.recent import RecentWriter
from gpus.rollup import Bucket
from gpus.sample import CardSample
from tests.helpers import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
UNPACKED = ROOT / ".venv" / "prometheus" / "usr" / "bin"
DASHBOARD = ROOT / "docs" / "grafana" / "omni.json"


def binary(name: str) -> str:
    """Installed, or unpacked by the Makefile."""
    found = shutil.which(name) or shutil.which(name, path=str(UNPACKED))
    if not found:
        pytest.skip(
            f"{name} is not here: `make test` unpacks Debian's package prometheus"
        )
    return found


@pytest.fixture
def rig(watched_host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Something of everything that /metrics tells."""
    Gpu.objects.update(index=0)
    card: dict[str, object] = {"key": "GPU-1", "name": "RTX 5090", "state": "ok"}
    card |= {field: 1.0 for _, field, _, _ in CARDS} | {"pcie_replays": 3}
    frame = json.dumps({"at": 1, "cards": [card]})
    RecentWriter(watched_host.name).add(frame, "[1, 2, 3, {}]")
    engine = Engine.objects.create(host=watched_host, name="llama.cpp", path="/x")
    made = Deployment.objects.create(host=watched_host, name="smol", engine=engine)
    Instance.objects.create(
        host=watched_host, deployment=made, role="model", restarts=2
    )
    now = timezone.now()
    Alert.objects.create(
        host=watched_host, code="disk", subject="rig", name='a "quoted"\nname',
        severity="error", fired_at=now,
    )  # fmt: skip
    row = GatewayRequest(
        at=now, hour=1, surface="gateway", path="/v1", status=200, duration_ms=900,
        first_token_ms=120, deployment_name="smol", prompt_tokens=7, completion_tokens=5,
    )  # fmt: skip
    add_up([row, row])
    loads = {metric: 50.0 for _, metric, _, _ in LOADS}
    buckets = [
        Bucket(subject_of(made.pk), metric, int(now.timestamp() // 10 * 10), v, v, v, 1)
        for metric, v in loads.items()
    ]
    save_buckets(watched_host, buckets)
    monkeypatch.setitem(kv_transfer_state.counts, ("smol", "used"), 2)
    return watched_host


@pytest.fixture
def text(admin: Client, rig: Host) -> str:
    return admin.get("/metrics").content.decode()


def test_promtool_finds_nothing_wrong(text: str) -> None:
    done = subprocess.run(
        [binary("promtool"), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and not done.stderr, f"{done.stderr}\n{text}"


def exposed(text: str) -> set[str]:
    return {
        sample.name
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_dashboard_asks_for_metrics_that_there_are(text: str) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    asked += [each["definition"] for each in dashboard["templating"]["list"][1:]]
    named = set(re.findall(r"\b(?:omni|DCGM_FI_DEV)_\w+", "\n".join(asked)))
    assert len(named) > 15
    assert not named - exposed(text)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(
        dashboard["panels"]
    )


def test_what_metrics_and_alerts_read_of_a_card_is_what_the_sampler_writes() -> None:
    written = {each.name for each in fields(CardSample)}
    assert {field for _, field, _, _ in CARDS} < written
    source = (ROOT / "deployments" / "alerts" / "facts.py").read_text()
    read = set(re.findall(r'card(?:\.get\(|\[)"(\w+)"', source))
    assert len(read) > 10 and read < written


def test_the_monitoring_page_names_metrics_that_there_are(text: str) -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    named = set(re.findall(r"`((?:omni|DCGM)_\w+)`", page))
    families = {name.removesuffix("_bucket") for name in exposed(text)}
    assert named and not named - families


def test_promtool_reads_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    rules = [
        {
            "record": f"checked:{number}",
            "expr": re.sub(r"\[\$__rate_interval\]", "[1m]", target["expr"]),
        }
        for number, target in enumerate(
            target
            for panel in dashboard["panels"]
            for target in panel.get("targets", [])
        )
    ]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    done = subprocess.run(
        [binary("promtool"), "check", "rules", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- a real Prometheus ----------------------------------------------------------------------------
class Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def panel_port(transactional_db: None) -> Iterator[int]:
    """The panel's pages over real HTTP."""
    server = make_server("127.0.0.1", 0, WSGIHandler(), handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Starts when its configuration is written; the folder and the port."""
    port = free_port()
    config = tmp_path / "prometheus.json"
    yield config, port
    for process in _started:
        process.terminate()
        process.wait(20)
    _started.clear()


_started: list[subprocess.Popen[bytes]] = []


def start(config: Path, port: int, jobs: list[dict[str, object]]) -> None:
    every = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config.write_text(json.dumps({"global": every, "scrape_configs": jobs}))
    argv = [
        binary("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={config.parent / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (config.parent / "prometheus.log").open("wb") as log:
        _started.append(subprocess.Popen(argv, stdout=log, stderr=log))


def asked(port: int, query: str) -> list[tuple[dict[str, str], float]]:
    try:
        answer = httpx.get(
            f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}
        ).json()
    except (httpx.HTTPError, ValueError):
        return []
    found = answer.get("data", {}).get("result", [])
    return [(each["metric"], float(each["value"][1])) for each in found]


def test_a_real_prometheus_scrapes_the_panel_with_a_token_and_with_a_key(
    rig: Host, admin_user: User, panel_port: int, prometheus: tuple[Path, int]
) -> None:
    config, port = prometheus
    _, token = scrape_token_make(name="prometheus", user=admin_user)
    _, key = ApiKey.objects.create_key(name="scraper", owner=admin_user)
    jobs: list[dict[str, object]] = [
        {
            "job_name": name,
            "authorization": {"credentials": secret},
            "static_configs": [{"targets": [f"127.0.0.1:{panel_port}"]}],
        }
        for name, secret in (("token", token), ("key", str(key)), ("wrong", "x"))
    ]
    start(config, port, jobs)

    def up() -> dict[str, float]:
        return {labels["job"]: value for labels, value in asked(port, "up")}

    wait_until(
        lambda: up() == {"token": 1, "key": 1, "wrong": 0},
        60,
        (config.parent / "prometheus.log").read_text(),
    )
    query = (
        'histogram_quantile(0.5, omni_time_to_first_token_seconds_bucket{job="token"})'
    )
    [(labels, median)] = asked(port, query)
    assert labels["deployment"] == "smol" and 0.1 <= median <= 0.25
    [(labels, value)] = asked(port, 'DCGM_FI_DEV_GPU_TEMP{job="key"}')
    assert (labels["UUID"], labels["Hostname"], value) == ("GPU-1", rig.name, 1)
