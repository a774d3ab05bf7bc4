"""Web servers before a panel, run as ordinary child processes, set up as docs/proxy.md says."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import free_port, wait_until
from tests.prepared import ROOT

PAGE = ROOT / "docs" / "proxy.md"
# Everything that nginx writes, in a folder of the test's.
FRAME = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{server}
}}
"""


# Where Debian has web servers, which is on root's PATH only, and where `make test` puts one.
FOLDERS = f"/usr/sbin:/usr/local/sbin:{ROOT / '.venv' / 'nginx' / 'usr' / 'sbin'}"
CADDY = os.environ.get("OMNI_TEST_CADDY", "")
CADDY_FRAME = """
{{
    admin off
    skip_install_trust
    auto_https disable_redirects
    storage file_system {folder}
}}
{site}
"""


def nginx_path() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path=FOLDERS)
    if not found:
        raise RuntimeError("nginx is needed for these tests; `make test` gets it.")
    return found


def examples(language: str) -> list[str]:
    """The blocks of the docs page in this language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.M | re.S)


def put(text: str, *replacements: tuple[str, str]) -> str:
    """Each is in the text, so that an example that changed is not passed by."""
    for old, new in replacements:
        assert old in text, f"docs/proxy.md says {old!r} no longer"
        text = text.replace(old, new)
    return text


@dataclass(frozen=True)
class Proxy:
    """One that listens; `root` is the panel's address behind it."""

    port: int
    root: str
    certificate: Path

    def client_context(self) -> ssl.SSLContext:
        """TLS of a program that knows the certificate."""
        return ssl.create_default_context(cafile=str(self.certificate))


def make_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate of our own for an address or a name, and its key."""
    certificate, key = folder / "own.pem", folder / "own.key"
    kind = "IP" if host[0].isdigit() else "DNS"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
        + ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=omni"]
        + ["-addext", f"subjectAltName={kind}:{host}", "-addext", "basicConstraints=CA:TRUE"]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate, key


@contextmanager
def nginx(
    folder: Path,
    panel_port: int,
    *,
    strips_prefix: bool = False,
    host: str = "127.0.0.1",
    leaves_out: tuple[str, ...] = (),
    tls: bool = True,
    gateway_port: int = 0,
) -> Iterator[Proxy]:
    """nginx as the docs page has it, on a high port, with the gateway's own port or without;
    `leaves_out` are the beginnings of lines that somebody forgot."""
    folder.mkdir(exist_ok=True)
    certificate, key = make_certificate(folder, host)
    port = free_port()
    server = put(
        examples("nginx")[0],
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("server_name omni.lan;", f"server_name {host};"),
        ("/etc/ssl/omni.lan.pem", str(certificate)),
        ("/etc/ssl/omni.lan.key", str(key)),
        (
            "http://127.0.0.1:8000;",
            f"http://127.0.0.1:{panel_port}{'/' if strips_prefix else ''};",
        ),
    )
    server = "\n".join(
        line
        for line in server.splitlines()
        if not leaves_out or not line.strip().startswith(leaves_out)
    )
    if gateway_port:
        programs = put(examples("nginx")[1], (":8001/", f":{gateway_port}/"))
        server = server.rpartition("}")[0] + programs + "}"
    if not tls:
        server = put(server, (f":{port} ssl;", f":{port};"))
    config = folder / "nginx.conf"
    config.write_text(FRAME.format(folder=folder, server=server))
    log = folder / "error.log"
    argv = [nginx_path(), "-p", str(folder), "-c", str(config), "-e", str(log)]
    with running(argv, port, log):
        scheme = "https" if tls else "http"
        yield Proxy(port, f"{scheme}://{host}:{port}/omni", certificate)


@contextmanager
def caddy(folder: Path, panel_port: int, gateway_port: int) -> Iterator[Proxy]:
    """Caddy as the docs page has it, with the gateway's own port, on a high port, with a
    certificate of our own."""
    folder.mkdir(exist_ok=True)
    certificate, key = make_certificate(folder, "127.0.0.1")
    port = free_port()
    own = f"https://127.0.0.1:{port} {{\n    bind 127.0.0.1\n    tls {certificate} {key}\n"
    site = put(
        examples("caddy")[0],
        ("omni.lan {\n", own),
        (" 127.0.0.1:8000 ", f" 127.0.0.1:{panel_port} "),
    )
    programs = put(examples("caddy")[1], (":8001 ", f":{gateway_port} "))
    begin = "    reverse_proxy /omni/*"
    site = put(site, (begin, f"{programs}\n{begin}"))
    config = folder / "Caddyfile"
    config.write_text(CADDY_FRAME.format(folder=folder, site=site))
    argv = [CADDY, "run", "--config", str(config), "--adapter", "caddyfile"]
    with running(argv, port, folder / "caddy.log"):
        yield Proxy(port, f"https://127.0.0.1:{port}/omni", certificate)


@contextmanager
def running(argv: list[str], port: int, log: Path) -> Iterator[None]:
    """A web server that listens on the port, until the end of the block."""
    output = log.with_suffix(".out")
    home = {name: str(log.parent) for name in ("HOME", "XDG_DATA_HOME")}
    with output.open("w") as said:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **home},
        )
    try:
        wait_until(
            lambda: _listens(port) or process.poll() is not None,
            15,
            "it does not listen",
        )
        assert process.poll() is None, output.read_text() + _text_of(log)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _text_of(log: Path) -> str:
    return log.read_text() if log.exists() else ""


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
