"""External servers: addresses that are taken and refused, and their answers."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.engines.external import checked_address, is_ready, parse_models
from omni.errors import OmniError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080"),
        ("https://localhost/llm/v1", "https://localhost/llm"),
        ("http://[::1]:9000/v1", "http://[::1]:9000"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://Box.lan:8080", "http://box.lan:8080"),
        ("http://192.168.1.7", "http://192.168.1.7"),
    ],
)
def test_addresses_that_are_taken(text: str, address: str) -> None:
    assert checked_address(text, {"BOX.lan", "192.168.1.7"}) == address
    assert checked_address(address, {"box.lan", "192.168.1.7"}) == address


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("file:///etc/passwd", "bad_address"),
        ("ftp://127.0.0.1", "bad_address"),
        ("127.0.0.1:8080", "bad_address"),
        ("http://", "bad_address"),
        ("http://user:secret@127.0.0.1", "bad_address"),
        ("http://@127.0.0.1", "bad_address"),
        ("http://127.0.0.1?x=1", "bad_address"),
        ("http://127.0.0.1#x", "bad_address"),
        ("http://127.0.0.1:0", "bad_address"),
        ("http://127.0.0.1:70000", "bad_address"),
        ("http://127.0.0.1 /", "bad_address"),
        ("http://127.0.0.1\\@evil", "bad_address"),
        ("http://127.0.0.1\n", "bad_address"),
        ("http://127.0.0.1/../x", "bad_address"),
        ("http://127.0.0.1/%2e%2e/x", "bad_address"),
        ("http://[::1", "bad_address"),
        ("http://lоcalhost", "bad_address"),
        ("http://" + "a" * 400, "bad_address"),
        ("http://example.org", "address_not_allowed"),
        ("http://192.168.1.8", "address_not_allowed"),
        ("http://localhost.example.org", "address_not_allowed"),
        ("http://2130706433", "address_not_allowed"),
        ("http://127.1", "address_not_allowed"),
        ("http://0.0.0.0", "address_not_allowed"),
        ("http://169.254.169.254/latest", "address_not_allowed"),
        ("http://[fe80::1]", "address_not_allowed"),
    ],
)
def test_addresses_that_are_refused(text: str, code: str) -> None:
    with pytest.raises(OmniError) as refused:
        checked_address(text, {"192.168.1.7", "169.254.169.254"})
    assert refused.value.code == code and refused.value.fix
    assert "secret" not in str(refused.value)


@given(st.text(alphabet="htps:/@.[]127localex#?%\\ \t\n", max_size=40))
def test_whatever_is_taken_leads_to_this_machine(text: str) -> None:
    try:
        address = checked_address(text)
    except OmniError:
        return
    parts = urlsplit(address)
    assert parts.scheme in ("http", "https") and parts.username is None
    assert parts.hostname in ("localhost", "::1") or (parts.hostname or "").startswith(
        "127."
    )


def test_names_of_models_are_read_in_order_and_once() -> None:
    rows = [
        {"id": "b"},
        {"id": "a"},
        {"id": "b"},
        {"id": ""},
        {"id": "x\n"},
        {"id": 3},
        {"id": "y" * 201},
    ]
    assert parse_models(json.dumps({"data": rows})) == ("b", "a")
    assert (
        len(parse_models(json.dumps({"data": [{"id": str(n)} for n in range(2000)]})))
        == 1000
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"data":3}',
        b'{"data":[]}',
        b'{"data":[3]}',
        b"\xff",
        b"[" * 9999,
    ],
)
def test_an_answer_that_is_no_list_of_models_is_refused(body: bytes) -> None:
    with pytest.raises(OmniError) as refused:
        parse_models(body)
    assert refused.value.code == "not_openai_compatible"


@pytest.mark.parametrize(
    ("path", "status", "ready"),
    [
        ("/health", 200, True),
        ("/health", 503, False),
        ("/health", 404, None),
        ("/health", 401, None),
        ("/v1/models", 200, True),
        ("/v1/models", 401, False),
        ("/v1/models", 500, False),
    ],
)
def test_what_an_answer_tells_of_readiness(
    path: str, status: int, ready: bool | None
) -> None:
    assert is_ready(path, status) is ready
