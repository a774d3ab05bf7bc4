#!/usr/bin/env python
"""Omni's command line: `manage.py help` lists the commands."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
    from django.core.management import execute_from_command_line

    from omni.env import EnvError
    from omni.home import HomeError

    try:
        execute_from_command_line(sys.argv)
    except (EnvError, HomeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
