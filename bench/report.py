"""Results as a table, with what was aimed at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Aim:
    """A bound on a figure: at least ``low`` or at most ``high``."""

    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"≥ {self.low:g}" if self.low is not None else f"≤ {self.high:g}"

    def is_met(self, value: float) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure."""

    what: str
    value: float
    unit: str
    aim: Aim | None = None

    def cells(self) -> tuple[str, str, str, str]:
        """What, figure with unit, aim, and whether it is met."""
        if self.aim is None:
            return self.what, f"{_number(self.value)} {self.unit}", "", ""
        return (
            self.what,
            f"{_number(self.value)} {self.unit}",
            str(self.aim),
            "yes" if self.aim.is_met(self.value) else "NO",
        )


@dataclass(frozen=True, slots=True)
class Section:
    """Figures that belong together, and in a sentence how they came about."""

    title: str
    how: str
    rows: list[Row]

    def __str__(self) -> str:
        """A Markdown table that is also aligned on a terminal."""
        lines = [("measure", "result", "aim", "met"), *(row.cells() for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(4)]
        table = [
            "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"
            for line in lines
        ]
        table.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return f"## {self.title}\n\n{self.how}\n\n" + "\n".join(table) + "\n"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
