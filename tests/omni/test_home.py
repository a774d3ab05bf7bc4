"""OMNI_HOME is private, its secrets are made once."""

from __future__ import annotations

import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from omni.home import UNIX_SOCKET_PATH_LIMIT, Home, HomeError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folders_belong_to_their_user_only(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    assert mode(home.root) == mode(home.run) == mode(home.logs) == 0o700


def test_a_secret_is_long_private_and_stays(tmp_path: Path) -> None:
    home = Home(tmp_path)
    secret = home.secret("engine")
    assert len(secret) >= 43  # 256 bits in base64
    assert home.secret("engine") == secret
    assert home.secret("django") != secret
    assert mode(home.secret_path("engine")) == 0o600


def test_many_processes_asking_first_get_the_same_secret(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: home.secret("new"), range(32)))) == 1


def test_a_secret_that_was_given_is_kept_private_replaced_and_forgotten(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    assert home.kept_secret("other") == ""
    for text in ("one", "two"):
        home.keep_secret("other", text)
        assert home.kept_secret("other") == text
        (path,) = (path for path in home.run.iterdir() if path.name.startswith("other"))
        assert path.stat().st_mode & 0o777 == 0o600
    home.forget_secret("other")
    home.forget_secret("other")
    assert home.kept_secret("other") == "" and not list(home.run.glob("other*"))


def test_the_broker_socket_fits_even_below_a_long_path(tmp_path: Path) -> None:
    short, long = Home(Path("/srv/omni")), Home(tmp_path / ("deep" * 40))
    assert short.valkey_socket == Path("/srv/omni/run/valkey.sock")
    assert len(str(long.valkey_socket)) <= UNIX_SOCKET_PATH_LIMIT
    assert long.valkey_socket != Home(tmp_path / ("deep" * 41)).valkey_socket


def test_an_engines_socket_lies_below_home_and_its_path_is_never_too_long(
    tmp_path: Path,
) -> None:
    short, long = Home(Path("/srv/omni")), Home(tmp_path / ("deep" * 40))
    assert short.engine_socket("small.model") == Path(
        "/srv/omni/run/s/small.model.sock"
    )
    for home in (short, long):
        paths = {
            home.engine_socket(f"{'long' * 30}.{role}")
            for role in ("prefill", "decode")
        }
        assert len(paths) == 2 and all(
            len(str(path)) <= UNIX_SOCKET_PATH_LIMIT for path in paths
        )


def test_the_folder_of_a_deep_home_is_new_private_and_the_same_for_every_process(
    tmp_path: Path,
) -> None:
    deep = tmp_path / ("deep" * 40)
    folder = Home(deep).sockets
    assert folder.stat().st_mode & 0o777 == 0o700
    assert Home(deep).sockets == folder and Home(deep).valkey_socket.parent == folder


def test_a_folder_that_others_may_enter_or_that_is_a_link_is_not_used(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path / ("deep" * 40))
    first = home.sockets
    first.chmod(0o777)
    second = home.sockets
    assert second != first
    second.rmdir()
    second.symlink_to(tmp_path)
    assert home.sockets not in (first, second)


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give a folder to somebody else"
)
def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    home = Home(tmp_path / ("deep" * 40))
    first = home.sockets
    os.chown(first, 65534, 65534)
    assert home.sockets != first


def test_a_block_of_one_name_is_entered_by_one_at_a_time(tmp_path: Path) -> None:
    home = Home(tmp_path)
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with home.one_at_a_time("look"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    with home.one_at_a_time("something else"):
        for thread in threads:
            thread.join(20)
    assert most == 1


@pytest.mark.parametrize("mode_of_it", [0o1777, 0o777, 0o1755, 0o702])
def test_a_folder_that_others_work_in_is_refused_and_left_as_it_is(
    tmp_path: Path, mode_of_it: int
) -> None:
    """Such as OMNI_HOME=/tmp, which would be shut for everybody else."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode_of_it)
    with pytest.raises(HomeError) as refused:
        Home(shared).create()
    assert mode(shared) == mode_of_it
    assert str(shared) in str(refused.value) and "OMNI_HOME" in str(refused.value)


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with pytest.raises(HomeError):
        Home(theirs).create()
    assert mode(theirs) == 0o755
