"""The one error that the command treats in its own way."""


class UsageError(ValueError):
    """The words of the command are wrong: exit code 2. Work that failed raises ValueError or OSError: exit code 1."""
