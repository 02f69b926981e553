"""Hypervisor, storage and network drivers: the only code that touches the outside world."""
