"""The external tier: the public API, which reads PostgreSQL and forwards every change."""
