"""What is known of external servers: their keys, what they answer, what can be
planned of them.

Starts and signals nothing. Their flavour stands beside the others in engines/external.py.
Entered by services, the gateway and the supervision, which change rows and look after them.
"""
