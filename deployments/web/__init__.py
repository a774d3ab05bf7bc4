"""Pages, forms, sockets and the administration of deployments: thin, each asks a service.

Nothing but urls.py, socket_urls.py and Django's administration leads here, and the chat where it
fills in the form of a benchmark.
"""
