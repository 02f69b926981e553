"""What the store's tests share."""

from support.postgres import database

__all__ = ["database"]
