"""The ``terrace`` command: a client of the public API, and nothing of the servers."""
