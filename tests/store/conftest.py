"""What the store's tests share."""

from support.postgres import cluster, database

__all__ = ["cluster", "database"]
