"""Messages of alerts: to a real server that fails first, by ntfy, by mail, and where it ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core import mail
from django.utils import timezone

from deployments.alerts.messages import ChannelKind, Message, checked_address, post_of
from deployments.alerts.rules import Severity
from deployments.models import Alert, AlertChannel, AlertDelivery
from deployments.services import alert_sending
from deployments.services.alert_channels import (
    ChannelTerms,
    Target,
    channel_add,
    channel_change,
    channel_remove,
    channel_test,
    target_of,
)
from deployments.services.alert_sending import MOST_ATTEMPTS, send_due
from deployments.supervision.alert_watch import AlertWatch
from gpus.models import Host
from omni.errors import OmniError
from tests.alerts.receiver import Receiver, receiving
from tests.helpers import free_port

Agent = Callable[[], AlertWatch]
Looks = Callable[..., list[bool]]
SECRET = "s3cret-part-of-the-address"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def add(watched_host: Host, admin_user: User) -> Callable[..., AlertChannel]:
    def make(kind: str, address: str, token: str = "", **more: Any) -> AlertChannel:
        name = more.pop("name", kind)
        terms = ChannelTerms(name, ChannelKind(kind), Target(address, token), **more)
        return channel_add(host=watched_host, terms=terms, user=admin_user)

    return make


def time_passes() -> None:
    """All that waits is due now."""
    AlertDelivery.objects.update(next_at=timezone.now() - timedelta(seconds=1))


def test_a_webhook_that_fails_twice_gets_an_alert_exactly_once(
    agent: Agent, looks: Looks, watched_host: Host, receiver: Receiver, add: Any
) -> None:
    add("webhook", f"{receiver.url}/hook/{SECRET}", token="tok")
    receiver.statuses = [500, 503]
    looks(agent(), 14, temperature_celsius=91)
    delivery = AlertDelivery.objects.get()
    for attempt in (1, 2):
        rest_s = send_due(watched_host)
        delivery.refresh_from_db()
        assert (delivery.state, delivery.attempts) == ("waiting", attempt)
        assert "status 50" in delivery.error and 0 < rest_s <= 10
        # Not before its time.
        send_due(watched_host)
        assert len(receiver.asked) == attempt
        time_passes()
    send_due(watched_host)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts, delivery.error) == ("sent", 3, "")
    time_passes()
    send_due(watched_host)
    [got] = receiver.taken
    assert len(receiver.asked) == 3
    assert got.path == f"/hook/{SECRET}"
    assert got.headers["Authorization"] == "Bearer tok"
    assert got.body["event"] == "fired" and got.body["code"] == "gpu_temperature"
    assert got.body["text"].startswith("RTX 5090 is at 91 °C.")


def test_ntfy_gets_its_topic_title_and_priority(
    agent: Agent, looks: Looks, watched_host: Host, receiver: Receiver, add: Any
) -> None:
    add("ntfy", f"{receiver.url}/ntfy/my-topic", token="tk_x")
    receiver.statuses = [429]
    watch = agent()
    looks(watch, 14, temperature_celsius=91)
    send_due(watched_host)
    time_passes()
    send_due(watched_host)
    looks(watch, 14, temperature_celsius=40)
    send_due(watched_host)
    fired, over = receiver.taken
    assert fired.path == "/ntfy/" and fired.headers["Authorization"] == "Bearer tk_x"
    assert fired.body["topic"] == "my-topic" and fired.body["priority"] == 4
    assert "GPU temperature (caution)" in fired.body["title"]
    assert "(cleared)" in over.body["title"] and over.body["priority"] == 3


def test_mail_goes_by_djangos_mailer(
    watched_host: Host, add: Any, settings: Any, admin_user: User
) -> None:
    channel = add("email", "ada@example.org, ops@example.org")
    channel_test(channel=channel, user=admin_user)
    send_due(watched_host)
    delivery = AlertDelivery.objects.get()
    assert delivery.state == "failed" and "OMNI_EMAIL_HOST" in delivery.error
    settings.EMAIL_HOST = "mail.example.org"
    channel_test(channel=channel, user=admin_user)
    send_due(watched_host)
    [sent] = mail.outbox
    assert (
        sent.to == ["ada@example.org", "ops@example.org"] and "a test" in sent.subject
    )


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404])
def test_a_refusal_is_final_and_no_redirect_is_followed(
    watched_host: Host, receiver: Receiver, add: Any, admin_user: User, status: int
) -> None:
    channel_test(channel=add("webhook", receiver.url), user=admin_user)
    receiver.statuses = [status]
    send_due(watched_host)
    time_passes()
    send_due(watched_host)
    assert AlertDelivery.objects.get().state == "failed"
    assert len(receiver.asked) == 1


def test_an_address_that_nobody_answers_is_given_up_after_a_while(
    watched_host: Host, add: Any, admin_user: User
) -> None:
    channel = add("webhook", f"http://127.0.0.1:{free_port()}/{SECRET}")
    channel_test(channel=channel, user=admin_user)
    for _ in range(MOST_ATTEMPTS + 3):
        send_due(watched_host)
        time_passes()
    delivery = AlertDelivery.objects.get()
    assert (delivery.state, delivery.attempts) == ("failed", MOST_ATTEMPTS)
    assert SECRET not in delivery.error


def test_an_answer_that_comes_in_drops_is_not_waited_for(
    watched_host: Host, add: Any, admin_user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_sending, "WITHIN_S", 0.5)
    is_over = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not is_over.wait(0.05):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening,))
        thread.start()
        port = listening.getsockname()[1]
        channel = add("webhook", f"http://127.0.0.1:{port}/")
        channel_test(channel=channel, user=admin_user)
        send_due(watched_host)
        is_over.set()
        thread.join()
    delivery = AlertDelivery.objects.get()
    assert delivery.state == "waiting" and "TimeoutError" in delivery.error


def test_a_channel_is_told_by_the_agent_of_its_own_host(
    receiver: Receiver, add: Any, admin_user: User
) -> None:
    channel_test(channel=add("webhook", receiver.url), user=admin_user)
    send_due(Host.objects.create(name="another"))
    assert receiver.asked == [] and AlertDelivery.objects.get().state == "waiting"


def test_two_senders_make_one_attempt(
    watched_host: Host,
    receiver: Receiver,
    add: Any,
    admin_user: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    channel_test(channel=add("webhook", receiver.url), user=admin_user)
    claim = alert_sending._claim

    def both(delivery: AlertDelivery) -> bool:
        other = AlertDelivery.objects.get(pk=delivery.pk)
        assert claim(other)
        return claim(delivery)

    monkeypatch.setattr(alert_sending, "_claim", both)
    send_due(watched_host)
    assert receiver.asked == []


def test_a_channel_is_told_what_is_severe_enough_and_only_while_it_is_on(
    agent: Agent, looks: Looks, add: Any, receiver: Receiver
) -> None:
    add("webhook", receiver.url, name="all", least_severity=Severity.INFO)
    add("webhook", receiver.url, name="worst", least_severity=Severity.ERROR)
    add("webhook", receiver.url, name="off", is_on=False)
    looks(agent(), 14, temperature_celsius=91)
    assert list(AlertDelivery.objects.values_list("channel__name", flat=True)) == [
        "all"
    ]


# --- secrets and addresses ------------------------------------------------------------------------
def test_an_address_and_its_token_lie_in_a_file_of_their_own(
    add: Any, admin_user: User, watched_host: Host
) -> None:
    channel = add("slack", f"https://hooks.example/{SECRET}", token="tok")
    assert SECRET not in str(vars(channel)) and channel.shown == "https://hooks.example"
    path = django_settings.OMNI_HOME.run / f"alert-channel-{channel.pk}.key"
    assert path.stat().st_mode & 0o777 == 0o600 and SECRET in path.read_text()
    assert SECRET not in repr(target_of(channel))
    kept = ChannelTerms(channel.name, ChannelKind.SLACK, Target(), Severity.INFO)
    channel_change(channel=channel, terms=kept, user=admin_user)
    assert SECRET in target_of(channel).address
    channel_remove(channel=channel, user=admin_user)
    assert not path.exists()


def test_only_administrators_set_where_alerts_are_told(
    watched_host: Host, operator_user: User
) -> None:
    terms = ChannelTerms("x", ChannelKind.WEBHOOK, Target("https://x.example"))
    with pytest.raises(OmniError, match="You may not"):
        channel_add(host=watched_host, terms=terms, user=operator_user)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x.example/hook",
        "file:///etc/passwd",
        "gopher://x.example",
        "unix:///run/x.sock",
        "http://",
        "http://user:password@x.example/",
        "http://x.example:99999/",
        "http://x.example/a b",
        "http://x.example/\r\nHost: y",
        "https://ntfy.sh/",
    ],
)
def test_addresses_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(OmniError):
        checked_address(url, ChannelKind.NTFY)


@pytest.mark.parametrize(("kind", "field"), [("slack", "text"), ("discord", "content")])
def test_chats_get_the_text_where_they_look_for_it(kind: str, field: str) -> None:
    message = Message(
        1, "fired", "error", "rig", "disk", "Disk nearly full", text="2 GiB @here"
    )
    post = post_of(ChannelKind(kind), "https://x.example/h", "", message)
    assert f'"{field}": ' in post.body.decode() and "2 GiB" in post.body.decode()
    assert "x.example" not in repr(post)


def test_alerts_of_a_removed_host_go_with_their_messages(
    add: Any, receiver: Receiver, watched_host: Host
) -> None:
    channel = add("webhook", receiver.url)
    alert = Alert.objects.create(
        host=watched_host, code="disk", subject="rig", severity="error",
        fired_at=timezone.now(),
    )  # fmt: skip
    AlertDelivery.objects.create(
        channel=channel, alert=alert, event="fired", created_at=timezone.now(),
        next_at=timezone.now(),
    )  # fmt: skip
    watched_host.delete()
    assert not AlertDelivery.objects.exists()
