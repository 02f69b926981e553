"""``python -m internal_api`` runs one internal node."""

from internal_api.main import serve

serve()
