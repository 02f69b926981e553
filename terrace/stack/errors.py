"""What goes wrong with a local stack, said in sentences for the person who ran the command."""


class StackError(Exception):
    """One clear sentence; `details` are lines that help (a log's tail, a command's output)."""

    def __init__(self, sentence: str, details: str = "") -> None:
        super().__init__(sentence)
        self.details = details


class SettingsError(StackError):
    """A setting has a value that can't be used."""
