"""`manage.py up`: everything a panel needs, in one foreground process."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import socket
import sys
import time
import webbrowser
from argparse import ArgumentParser
from pathlib import Path
from typing import IO, Any
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

import redis
from django.conf import settings
from django.core.management import BaseCommand, CommandError, call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from omni.launcher import Child, Panel, adopt_orphans, python_child, valkey_child

MANAGE = str(settings.BASE_DIR / "manage.py")
READY_TIMEOUT_S, BROKER_TIMEOUT_S = 60.0, 10.0
TICK_S = 0.1
# No proxy is between the panel and itself, whatever http_proxy says, and this name of it is always
# allowed.
OWN_NAME = {"Host": "localhost"}
_direct = build_opener(ProxyHandler({}))


class Command(BaseCommand):
    help = "Start Omni: broker, web server and agent, until Ctrl-C."
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)"
        )
        parser.add_argument(
            "--port", type=int, default=8000, help="port to listen on (default 8000)"
        )
        parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
        parser.add_argument(
            "--keep-models", action="store_true", help="on Ctrl-C leave the models running"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self.stopping = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)
        adopt_orphans()
        panel = Panel()
        if warning := root_warning(os.geteuid()):
            self._say(warning)
        with self._only_one():
            self._refuse_taken_port(options["host"], options["port"])
            try:
                self._start(panel, options["host"], options["port"])
                if not self.stopping:
                    self._announce(options)
                while not self.stopping:
                    panel.tend(self._say)
                    time.sleep(TICK_S)
            finally:
                self._stop(panel, keep_models=options["keep_models"])

    # --- start ------------------------------------------------------------------------------------
    def _only_one(self) -> IO[str]:
        """Holds the lock of this OMNI_HOME for as long as the process lives."""
        settings.OMNI_HOME.create()
        lock = (settings.OMNI_HOME.run / "up.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CommandError(
                f"Omni is already running with {settings.OMNI_HOME.root}. "
                "Stop it first, or set OMNI_HOME to another folder."
            ) from None
        return lock

    def _refuse_taken_port(self, host: str, port: int) -> None:
        if not 1 <= port <= 65535:
            raise CommandError(f"--port {port} is not a port. Use a number from 1 to 65535.")
        deadline = time.monotonic() + 3
        while True:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    return probe.bind((host, port))
                except OSError as error:
                    # A panel that was killed a moment ago may still hold it.
                    if time.monotonic() > deadline:
                        raise CommandError(
                            f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with"
                            " --port."
                        ) from None
            time.sleep(TICK_S)

    def _start(self, panel: Panel, host: str, port: int) -> None:
        logs = settings.OMNI_HOME.logs
        if not settings.OMNI_BROKER_URL:
            self._say("Starting the broker …")
            broker_folder = settings.OMNI_HOME.run
            broker = valkey_child(settings.OMNI_HOME.valkey_socket, broker_folder, logs)
            panel.children.append(broker)
            broker.start()
        self._migrate()
        self._ensure_admin()
        self._wait_for_broker(panel)
        self._say("Starting the web server and the agent …")
        worker = (
            "-m",
            "celery",
            "-A",
            "omni.celery",
            "worker",
            "--pool",
            "threads",
            "--concurrency",
            "4",
        )
        quiet = ("--without-gossip", "--without-mingle", "--loglevel", "WARNING")
        queue = settings.CELERY_TASK_DEFAULT_QUEUE
        name = ("--queues", queue, "--hostname", f"agent@{settings.OMNI_HOST_NAME}")
        for child in (
            python_child("agent", (*worker, *quiet, *name), logs),
            python_child(
                "web server", (MANAGE, "serve", "--host", host, "--port", str(port)), logs
            ),
        ):
            panel.children.append(child)
            child.start()
        self._wait_until_ready(panel, f"http://{_authority(host, port)}/healthz")

    def _migrate(self) -> None:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            self._say("Preparing the database …")
            call_command("migrate", interactive=False, verbosity=0)

    def _ensure_admin(self) -> None:
        from django.contrib.auth import get_user_model

        users = get_user_model().objects
        if users.filter(is_superuser=True).exists():
            return
        given = os.environ.get("OMNI_ADMIN_PASSWORD", "")
        if given:
            refuse_weak_password(given)
        password = given or secrets.token_urlsafe(12)
        users.create_superuser("admin", password=password)
        shown = (
            "the password from OMNI_ADMIN_PASSWORD"
            if given
            else f"password {password}  (shown this once)"
        )
        self._say(f"Made the administrator: name admin, {shown}")

    def _wait_for_broker(self, panel: Panel) -> None:
        client = redis.Redis.from_url(settings.CHANNEL_REDIS_URL, socket_connect_timeout=1)
        deadline = time.monotonic() + BROKER_TIMEOUT_S
        while True:
            try:
                client.ping()
                return client.close()
            except (redis.RedisError, OSError) as error:
                if time.monotonic() > deadline:
                    hint = (
                        "Check OMNI_BROKER_URL."
                        if settings.OMNI_BROKER_URL
                        else _log_of(panel.children[0])
                    )
                    raise CommandError(f"The broker does not answer: {error}. {hint}") from None
            time.sleep(0.02)

    def _wait_until_ready(self, panel: Panel, url: str) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        web = panel.child("web server")
        while not self.stopping:
            try:
                with _direct.open(Request(url, headers=OWN_NAME), timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (URLError, OSError):
                pass
            if web.exit_code is not None:
                raise CommandError(f"The web server ended while starting.\n{_log_of(web)}")
            if time.monotonic() > deadline:
                raise CommandError(
                    f"The web server is not ready after {READY_TIMEOUT_S:.0f} s.\n{_log_of(web)}"
                )
            time.sleep(TICK_S)

    def _announce(self, options: dict[str, Any]) -> None:
        url = f"http://{_authority(options['host'], options['port'])}/"
        self._say(
            f"Omni is ready: {url}   (Ctrl-C stops it; state and logs are in"
            f" {settings.OMNI_HOME.root})"
        )
        if not options["no_browser"] and sys.stdout.isatty() and os.environ.get("DISPLAY"):
            webbrowser.open(url)

    # --- stop -------------------------------------------------------------------------------------
    def _asked_to_stop(self, number: int, frame: Any) -> None:
        self.stopping += 1

    def _stop(self, panel: Panel, *, keep_models: bool) -> None:
        from deployments.supervision.stop import stop_everything

        self._say("Stopping …")
        for child in panel.children:
            if child.name == "agent":
                child.stop(timeout_s=5)
        if keep_models:
            self._say("The models keep running; the next start takes them over.")
        else:
            stop_everything(settings.OMNI_HOST_NAME, timeout_s=15)
        for child in reversed(panel.children):
            child.stop(timeout_s=5)
        panel.children.clear()
        self._say("Stopped.")

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def root_warning(user: int) -> str:
    """What to say to somebody who starts Omni as root; empty for everybody else."""
    if user != 0:
        return ""
    return (
        "Warning: Omni runs as root, and so does every engine it starts: a fault in one of them, or"
        " in a model's file, would be a fault of the whole machine.\nMake a user for it (for"
        " example: useradd --create-home omni), give that user the models' folder to read, and"
        " start Omni as that user."
    )


def _authority(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"


def _log_of(child: Child) -> str:
    path = Path(child.log_path)
    return f"The end of {path}:\n{child.last_lines()}"


def refuse_weak_password(password: str) -> None:
    """The same rules as for a password that is typed into a page."""
    from django.contrib.auth.password_validation import validate_password
    from django.core.exceptions import ValidationError

    try:
        validate_password(password)
    except ValidationError as error:
        said = " ".join(error.messages)
        raise CommandError(
            f"OMNI_ADMIN_PASSWORD cannot be the administrator's password. {said} "
            "Set another one, or none: then one is made and shown once."
        ) from None
