"""Loaded by pytest before anything reads Django's settings: the tests have an OMNI_HOME of their
own."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

# Anthropic's client, which tests ask with, needs it; Omni, which is loaded later, does without.
import opentelemetry.trace  # noqa: F401

for name in [
    name
    for name in os.environ
    if name.startswith("OMNI_") and not name.startswith("OMNI_TEST_")
]:
    del os.environ[name]
# The tests ask servers of this machine; panels that they start get a proxy that leads nowhere (see
# tests/panel.py).
for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]
_home = tempfile.mkdtemp(prefix="omni-test-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ |= {"OMNI_HOME": _home, "OMNI_HOST_NAME": "testhost", "HF_HUB_OFFLINE": "1"}
# Tests of several devices need them; a panel has none unless somebody asks.
os.environ["OMNI_STAND_IN_DEVICES"] = "2"
# Threads of an engine wait for each other by turning in circles. Where engines share the cores, as
# here, two threads take three times as much of the processor for an answer as one.
os.environ["OMNI_CORES"] = "1"
# What is made once for all of them (tests/prepared.py), whichever of the processes that share the
# tests needs it first; those have it from the one that started them.
if "OMNI_TEST_SHARED" not in os.environ:
    _shared = tempfile.mkdtemp(prefix="omni-test-shared-")
    atexit.register(shutil.rmtree, _shared, ignore_errors=True)
    os.environ["OMNI_TEST_SHARED"] = _shared
if "OMNI_TEST_DATABASE_URL" in os.environ:
    os.environ["OMNI_DATABASE_URL"] = os.environ["OMNI_TEST_DATABASE_URL"]
