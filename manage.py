#!/usr/bin/env python
"""Omni's command line: `manage.py help` lists the commands."""

import os
import sys


def main() -> None:
    from omni.env import EnvError
    from omni.home import HomeError

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
    try:
        if sys.argv[1:2] == ["up"]:
            # It lives as long as the panel and only waits: it does without Django.
            from omni.up import main as up

            sys.exit(up(sys.argv[2:]))
        if sys.argv[1:] == ["prepare"]:
            # Most starts find all of it there, which is seen without Django, too.
            from omni.prepared import is_prepared

            if is_prepared():
                return
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    except (EnvError, HomeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
