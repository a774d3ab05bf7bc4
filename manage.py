#!/usr/bin/env python
"""Omni's command line: `manage.py help` lists the commands."""

import os
import sys

# The sampler knows the rig's tables only; whoever starts it needs nothing to say about that.
SETTINGS = {"sampler": "gpus.sampler_settings"}


def main() -> None:
    from omni.env import EnvError
    from omni.home import HomeError

    command = sys.argv[1] if len(sys.argv) > 1 else ""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", SETTINGS.get(command, "omni.settings"))
    try:
        if command == "up":
            # It lives as long as the panel and only waits: it does without Django.
            from omni.up import main as up

            sys.exit(up(sys.argv[2:]))
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    except (EnvError, HomeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
