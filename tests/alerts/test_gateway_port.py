"""/metrics on the gateway's own port, in a process of its own: its requests are counted there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from django.conf import settings

from tests.gateway.fake_engine import FakeEngine
from tests.gateway.served import Served, question
from tests.helpers import wait_until


@pytest.fixture
def gateway(tmp_path: Path, broker: None) -> Iterator[Served]:
    fake = FakeEngine()
    running = Served(tmp_path, command="gateway")
    running.extra_env["OMNI_BROKER_URL"] = settings.CHANNEL_REDIS_URL
    running.extra_env["OMNI_SCRAPE_TOKEN"] = "of-the-environment"
    running.prepare({"faulty": fake.port})
    running.start()
    yield running
    running.stop()
    fake.close()


def scraped(gateway: Served, secret: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    return httpx.get(f"{gateway.url}/metrics", headers=headers, timeout=20)


def test_the_gateways_port_answers_a_scraper_and_counts_its_requests(
    gateway: Served,
) -> None:
    for secret in (gateway.key, "of-the-environment"):
        assert scraped(gateway, secret).status_code == 200
    for secret in ("", "wrong"):
        refused = scraped(gateway, secret)
        assert refused.status_code == 401 and "scrape token" in refused.text
        assert refused.headers["www-authenticate"].startswith("Bearer")
    assert (
        gateway.post(question("takes_its_time", "faulty", stream=True)).status_code
        == 200
    )
    counted = 'omni_requests_total{deployment="faulty",status="200"} 1.0'
    first = 'omni_time_to_first_token_seconds_count{deployment="faulty"} 1.0'
    # They are added up a moment after their end.
    wait_until(
        lambda: all(
            each in scraped(gateway, gateway.key).text for each in (counted, first)
        ),
        20,
    )
    head = httpx.head(
        f"{gateway.url}/metrics", headers={"authorization": f"Bearer {gateway.key}"}
    )
    assert head.status_code == 200 and not head.content
