# What Omni uses of it; the package itself carries no types.
from typing import Any

class WebRequest:
    channel: Any
    handleContentChunk: Any

class HTTPFactory:
    server: Any

    def __init__(self, server: Any) -> None: ...
    def buildProtocol(self, address: Any) -> Any: ...
