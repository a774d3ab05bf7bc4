"""What runs and what ran, in a browser: a request is seen, cancelled, found again and counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import log_in
from tests.browser.looks import in_four_looks
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.served import question
from tests.helpers import wait_until
from tests.panel import RunningPanel
