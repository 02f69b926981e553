"""Terrace: a private cloud that a small team can run itself; what both tiers and the tools share."""

__version__ = "0.1.0"
