"""Makes what runs be what is desired: the agent of one host, its processes, and what it observed of
them.

reconcile.py decides and is pure; the rest observes and acts.
Entered by tasks only; everybody else reads rows.
"""
