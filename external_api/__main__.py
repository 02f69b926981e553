"""``python -m external_api`` runs one external node."""

from external_api.main import serve

serve()
