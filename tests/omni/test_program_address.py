"""The address for programs: the gateway's own port where the panel itself was reached, else what
the proxy leads to."""

from __future__ import annotations

import pytest
from django.test import RequestFactory, override_settings

from omni.program_address import panel_root, program_address


@pytest.mark.parametrize(
    ("host", "prefix", "secure", "gateway_port", "address"),
    [
        ("127.0.0.1:8000", "", False, 8001, "http://127.0.0.1:8001/v1"),
        ("[::1]:8000", "", False, 8001, "http://[::1]:8001/v1"),
        ("127.0.0.1:8000", "", False, 0, "http://127.0.0.1:8000/v1"),
        # A proxy, by its port, its path or its TLS.
        ("localhost", "", False, 8001, "http://localhost/v1"),
        ("localhost:8443", "", True, 8001, "https://localhost:8443/v1"),
        ("localhost:8000", "", True, 8001, "https://localhost:8000/v1"),
        ("localhost:8000", "/omni", False, 8001, "http://localhost:8000/omni/v1"),
        ("localhost", "/omni", True, 8001, "https://localhost/omni/v1"),
    ],
)
def test_the_address_is_one_that_leads_to_the_gateway(
    host: str, prefix: str, secure: bool, gateway_port: int, address: str
) -> None:
    request = RequestFactory().get(
        "/", secure=secure, SERVER_PORT="8000", HTTP_HOST=host
    )
    with override_settings(OMNI_PATH_PREFIX=prefix, OMNI_GATEWAY_PORT=gateway_port):
        assert program_address(request) == address
        scheme = "https" if secure else "http"
        assert panel_root(request) == f"{scheme}://{host}{prefix}"
