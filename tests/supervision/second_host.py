"""An agent of another host, as a program: `python -m tests.supervision.second_host`, with that
host's environment."""

from __future__ import annotations

import signal
import sys
import time

import django


def main() -> None:
    django.setup()
    from deployments.services.discovery import ensure_devices, local_host
    from deployments.supervision.decision import Limits
    from deployments.supervision.host_agent import HostAgent

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    host = local_host()
    ensure_devices(host, look_again=True)
    agent = HostAgent(host, limits=Limits(first_delay_s=0.1, longest_delay_s=0.4))
    while True:
        is_busy = agent.tick()
        time.sleep(0.1 if is_busy else 0.3)


if __name__ == "__main__":
    main()
