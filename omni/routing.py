"""All WebSocket paths."""

from __future__ import annotations

from django.urls import re_path

from chat.routing import websocket_urlpatterns as chat_sockets
from deployments.routing import websocket_urlpatterns as deployment_sockets
from gpus.routing import websocket_urlpatterns as gpu_sockets
from omni.sockets import NoSuchSocket

websocket_urlpatterns = [*gpu_sockets, *deployment_sockets, *chat_sockets, re_path("", NoSuchSocket.as_asgi())]
