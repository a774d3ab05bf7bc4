"""The one error that a user may see."""

from __future__ import annotations


class OmniError(Exception):
    """Something went wrong that a person can understand.

    `code` is a stable snake_case identifier, `text` one sentence that says what was wrong and
    where, `fix` one sentence that says what to do, `retry` whether trying again can help without
    changing anything.

    The sentences are for people: no code looks into them (tests/test_errors_are_typed.py). What
    code has to know beyond the code is a field of a subclass, such as ExtraArgError.item,
    EngineEnded.printed or RigError.problems.
    """

    def __init__(
        self, code: str, text: str, fix: str = "", *, retry: bool = False
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.fix = fix
        self.retry = retry

    def __str__(self) -> str:
        return f"{self.text} {self.fix}".strip()

    def as_dict(self) -> dict[str, str]:
        return {"code": self.code, "text": self.text, "fix": self.fix}


class TryLater(OmniError):
    """There is no room now; asking again may help after `retry_after_s`."""

    def __init__(self, code: str, text: str, fix: str, *, retry_after_s: int) -> None:
        super().__init__(code, text, fix, retry=True)
        self.retry_after_s = retry_after_s
