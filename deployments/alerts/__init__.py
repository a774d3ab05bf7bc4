"""Alerts: which facts are worth one, when one fires and when it clears, and how it is written.

Pure: the supervision brings the facts, services write the rows and send the messages.
"""
