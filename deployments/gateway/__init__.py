"""One address for every program: keys, routes, relay, and KV transfer between two engines.

Reads rows and never asks the supervision or services: it answers while both are busy.
Entered by omni/asgi.py and the chat.
"""
