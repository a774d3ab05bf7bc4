"""What `auto` does: reads a prompt, scores purposes, and picks a deployment, rule by rule.

Pure: no rows, no clock, no sockets. Entered by gateway/routing.py, tests and the Routing page.
"""
