"""All WebSocket paths."""

from __future__ import annotations

from chat.routing import websocket_urlpatterns as chat_sockets
from deployments.routing import websocket_urlpatterns as deployment_sockets
from gpus.routing import websocket_urlpatterns as gpu_sockets

websocket_urlpatterns = [*gpu_sockets, *deployment_sockets, *chat_sockets]
