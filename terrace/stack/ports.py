"""TCP ports of a stack."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ports:
    """Every TCP port of a stack, counted from its base. `index` counts nodes from 0."""

    base: int

    @property
    def public(self) -> int:
        return self.base

    @property
    def internal(self) -> int:
        return self.base + 1

    @property
    def postgres(self) -> int:
        return self.base + 2

    @property
    def redis(self) -> int:
        return self.base + 3

    def internal_node(self, index: int) -> int:
        return self.base + 10 + index

    def agent(self, index: int) -> int:
        return self.base + 20 + index

    def external_node(self, index: int) -> int:
        return self.base + 30 + index

    @property
    def public_metrics(self) -> int:
        return self.base + 40

    @property
    def internal_metrics(self) -> int:
        return self.base + 41
