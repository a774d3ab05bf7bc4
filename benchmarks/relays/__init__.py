"""What benchmarks/gateway.py is put together from: an upstream, a client, and relays to compare."""
