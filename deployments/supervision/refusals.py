"""What the machine refuses at a start, as an OmniError."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from omni.errors import OmniError


@contextmanager
def refusals() -> Iterator[None]:
    """What the machine refuses inside, as an OmniError: a disk that is full or read-only, no
    process."""
    try:
        yield
    except OSError as error:
        raise refused_by_the_machine(error) from None


def refused_by_the_machine(error: OSError) -> OmniError:
    """A start that failed here, before there was an engine; it may work when it is tried again."""
    if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        text = f"The machine could not make a process: {error.strerror}."
        return OmniError(
            "no_process",
            text,
            "End what is not needed, or raise the limits of this user.",
            retry=True,
        )
    where = f" {error.filename}" if error.filename else ""
    text = f"The files of the process cannot be written{where}: {error.strerror}."
    return OmniError(
        "no_room",
        text,
        "Make room on the disk of OMNI_HOME, or correct its permissions.",
        retry=True,
    )
