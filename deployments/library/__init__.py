"""Models on disk: folders that are scanned and watched, rows of what lies in them, downloads from a
hub.

Writes rows of models, folders and downloads, and nothing else.
Entered by services, the agent and pages.
"""
