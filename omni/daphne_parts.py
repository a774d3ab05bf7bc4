"""What is used of Daphne, loaded without what it has no use for either."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec

# Daphne wants WebSockets of autobahn, whose package begins with all of its remote calls (WAMP) and
# the cryptography for them: 12 MB. Of these packages only what is asked for is loaded.
for _name in ("autobahn.wamp", "autobahn.twisted"):
    _spec = find_spec(_name)
    if _spec and _name not in sys.modules:
        sys.modules[_name] = module_from_spec(_spec)

from daphne.endpoints import build_endpoint_description_strings  # noqa: E402
from daphne.http_protocol import HTTPFactory, WebRequest  # noqa: E402

# Daphne's own: imported from Twisted, it would be another one where Daphne was not there first.
from daphne.server import Server, reactor  # noqa: E402

__all__ = [
    "HTTPFactory",
    "Server",
    "WebRequest",
    "build_endpoint_description_strings",
    "reactor",
]
