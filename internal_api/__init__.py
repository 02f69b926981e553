"""The internal tier: one node on each virtualization host, which writes and provisions."""
