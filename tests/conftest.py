"""What all tests share: a throw-away OMNI_HOME, a real Valkey, people with roles, a running
panel."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher, make_password
from django.contrib.auth.models import Group, User
from django.test import Client
from hypothesis import HealthCheck, settings
from whitenoise.middleware import WhiteNoiseMiddleware

from tests import flushed, migrated
from tests.page_socket import logged_in
from tests.panel import RunningPanel

PASSWORD = "correct horse battery"
ROUNDS = 1000
# How long an example takes says something about the machine, nothing about what is tested.
settings.register_profile(
    "omni", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("omni")


# What takes minutes begins first, so that the processes that share the files end at about the same
# time.
LONG_FIRST = (
    "test_agent_faults.py",
    "test_panel_faults.py",
    "test_draining.py",
    "test_run.py",
    "test_kv_transfer.py",
    "test_lanes.py",
    "test_first_page.py",
    "test_benchmark_of_five.py",
    "test_bench_report.py",
    "test_strategies.py",
    "test_pages.py",
    "test_life.py",
    "test_benchmarks.py",
    "test_owners_rig.py",
    "test_votes.py",
    "test_behind_a_proxy.py",
    "test_lost_and_found.py",
    "test_bench_disturbed.py",
    "test_panel_survival.py",
    "test_bench.py",
    "test_hostile_clients.py",
    "test_random_operations.py",
    "test_download.py",
    "test_live_figures.py",
    "test_across_hosts.py",
    "test_plan_page.py",
    "test_main_job.py",
    "test_real_engine.py",
    "test_who_may_do_what.py",
    "test_external_pages.py",
    "test_gateway_faults.py",
    "test_rig_live.py",
    "test_card_scenarios.py",
    "test_waiting.py",
    "test_redrawing.py",
    "test_requests.py",
    "test_rig_file.py",
    "test_no_contradiction.py",
    "test_memory_of_the_engine.py",
    "test_draining_page.py",
    "test_local_attackers.py",
    "test_attacks_on_an_engine.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONG_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG_FIRST)))


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the garbage collector need not look through
    it again and again, which took a tenth of the time of all tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def broker() -> Iterator[None]:
    """The embedded Valkey on the settings' own socket."""
    import redis
    from django.conf import settings

    from omni.launcher import valkey_child
    from tests.helpers import wait_until

    home = settings.OMNI_HOME
    home.create()
    child = valkey_child(home.valkey_socket, home.run, home.logs)
    child.start()
    client = redis.Redis.from_url(settings.CHANNEL_REDIS_URL)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False

    wait_until(answers, 10, "Valkey did not answer")
    client.close()
    yield
    child.stop(timeout_s=5)


@pytest.fixture(scope="session", autouse=True)
def static_files_found_once() -> Iterator[None]:
    """Each test client makes the middleware again, for which WhiteNoise reads about every static
    file: more than all the rest of a page. Here the first look serves all clients of a process."""
    find = WhiteNoiseMiddleware.add_files_from_finders
    found: dict[str, dict[str, object]] = {}

    def add_files_from_finders(self: WhiteNoiseMiddleware) -> None:
        if self.static_prefix not in found:
            find(self)
            found[self.static_prefix] = dict(self.files)
        self.files.update(found[self.static_prefix])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            WhiteNoiseMiddleware, "add_files_from_finders", add_files_from_finders
        )
        yield


@pytest.fixture(scope="session", autouse=True)
def empty_database_put_back_by_rows() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flushed.flush, "emit_post_migrate_signal", flushed.put_back)
        yield


@pytest.fixture(scope="session", autouse=True)
def empty_database_migrated_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrated.Command, "handle", migrated.migrate_or_copy)
        yield


@pytest.fixture(scope="session", autouse=True)
def passwords_hashed_quickly() -> Iterator[None]:
    """With the real algorithm, a thousandth of its rounds: the time that it takes as it should is
    all of what a wrong password costs here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PBKDF2PasswordHasher, "iterations", ROUNDS)
        yield


@pytest.fixture(autouse=True)
def fresh_channel_layer() -> None:
    """A layer keeps connections and locks of the event loop it was made in; each test has its own
    loop."""
    from channels.layers import channel_layers

    channel_layers.backends.clear()


@pytest.fixture(autouse=True)
def log_level_kept() -> Iterator[None]:
    """A command that a test calls in its own process sets it for that process."""
    root = logging.getLogger()
    before = root.level
    yield
    root.setLevel(before)


@pytest.fixture
def empty_groups() -> None:
    """For tests that count who listens: what was killed in other tests has left no group of the
    broker."""
    from tests.page_socket import forget_members

    forget_members()


@cache
def _hashed_password() -> str:
    """Made once for all users."""
    return make_password(PASSWORD)


def _user(name: str, **kwargs: object) -> User:
    return User.objects.create(username=name, password=_hashed_password(), **kwargs)


@pytest.fixture
def admin_user(db: None) -> User:
    return _user("ada", is_superuser=True, is_staff=True)


@pytest.fixture
def operator_user(db: None) -> User:
    user = _user("oscar")
    user.groups.add(Group.objects.get(name="operator"))
    return user


@pytest.fixture
def viewer_user(db: None) -> User:
    user = _user("vera")
    user.groups.add(Group.objects.get(name="viewer"))
    return user


@pytest.fixture
def anonymous() -> Client:
    return Client()


@pytest.fixture
def admin(admin_user: User) -> Client:
    return logged_in(admin_user)


@pytest.fixture
def operator(operator_user: User) -> Client:
    return logged_in(operator_user)


@pytest.fixture
def viewer(viewer_user: User) -> Client:
    return logged_in(viewer_user)


@pytest.fixture(scope="session")
def one_panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPanel]:
    """A real panel, started as `make up` starts it, with its own OMNI_HOME."""
    home = tmp_path_factory.mktemp("panel-home")
    running = RunningPanel(home, is_prepared=True)
    running.start()
    # The first look for models goes on after the start.
    scanned = running.manage("scan")
    assert scanned.returncode == 0, scanned.stderr
    yield running
    running.stop()


@pytest.fixture(scope="module")
def panel(one_panel: RunningPanel) -> RunningPanel:
    """The one that files share; nothing is deployed on it when a file begins."""
    one_panel.clear()
    return one_panel


@pytest.fixture
def fresh_panel(tmp_path: Path) -> Iterator[RunningPanel]:
    """A panel of this test's own, not started yet, without a database: for tests of a first start
    and those that kill parts of it."""
    running = RunningPanel(tmp_path / "home")
    yield running
    running.stop()
