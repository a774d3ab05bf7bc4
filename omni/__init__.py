import sys
from types import ModuleType
from typing import cast

# What packages try to import and do without where that fails: each would take memory in every
# process, and time of each start, for something that is not used here.
WITHOUT = (
    # httpx's command line program, with rich and click.
    "httpx._main",
    # Encrypted messages of channels_redis, revoked certificates of redis, TLS of Twisted: 7 MB.
    # A broker's TLS is Python's own.
    "cryptography",
    "OpenSSL",
    # Figures of redis for others' collectors.
    "opentelemetry",
    # Fields of PostgreSQL in the administration: with them comes its driver, 9 MB, where the
    # database is SQLite.
    "django.contrib.postgres",
)
for name in WITHOUT:
    cast("dict[str, ModuleType | None]", sys.modules).setdefault(name, None)
del name
