"""What is wrong with a configuration. Imports nothing of ours but the root of the tree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autostart.errors.root import AutostartError


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration.

    `where` is the dotted path inside the file (`services.whisper.example.org.idleTimeout`), `accepted`
    says in words what would be right.
    """

    where: str
    message: str
    accepted: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} (accepted: {self.accepted})" if self.accepted else text


class ConfigError(AutostartError):
    """The configuration file cannot be used; `problems` names every mistake in it."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{path}: {problem}" for problem in self.problems))
