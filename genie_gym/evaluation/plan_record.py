"""The JSON of a planner's games: how they were played, and each that is finished."""

import json
from pathlib import Path
from typing import Any

from genie_gym.errors import DataError
from genie_gym.files import write_text


class PlanRecord:
    """Games that a planner has played, in a file that is written anew after each.

    Args:
        file: where they are kept; None keeps them nowhere.
        made_with: all that decides how the games go: settings, hash of the world. JSON-able.
        resume: whether the games that lie in the file are kept, if there are any.

    Raises:
        DataError: the file is damaged, or its games were played otherwise.
    """

    def __init__(self, file: Path | None, made_with: dict[str, Any], *, resume: bool) -> None:
        self.file = file
        self.made_with: dict[str, Any] = json.loads(json.dumps(made_with, default=str))
        self.games: list[dict[str, Any]] = []
        """Every finished game."""
        if resume and file is not None and file.is_file():
            self.games = self._kept(file)

    def add(self, game: dict[str, Any]) -> None:
        """Take a finished game in, and write the file."""
        self.games.append(game)
        if self.file is not None:
            content = {**self.made_with, "games": self.games}
            write_text(self.file, json.dumps(content, indent=2) + "\n")

    def _kept(self, file: Path) -> list[dict[str, Any]]:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            games: list[dict[str, Any]] = content.pop("games")
            differences = _differences(content, self.made_with)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{file} is no record of a planner's games ({type(error).__name__}: {error}). "
                "Delete it, or take another --out"
            ) from error
        if differences:
            raise DataError(
                f"{file} holds games that were played otherwise: {'; '.join(differences)}. Resume "
                "with the same settings and world, or take another --out"
            )
        return games


def _differences(there: dict[str, Any], here: dict[str, Any], prefix: str = "") -> list[str]:
    """Name every value that differs; one that is not there counts as None."""
    found = []
    for name in sorted({*there, *here}):
        mine, theirs = here.get(name), there.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            found += _differences(theirs, mine, f"{prefix}{name}.")
        elif mine != theirs:
            found.append(f"{prefix}{name} was {theirs!r} and is {mine!r}")
    return found
