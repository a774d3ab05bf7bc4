"""What processes agree on about a running instance: its address, the drain lock, its files, ports
and log.

Decides nothing about what ought to run.
Entered by the gateway, services and the supervision.
"""
