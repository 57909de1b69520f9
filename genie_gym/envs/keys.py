"""Which keys a person presses for which action."""

from collections.abc import Sequence

_LETTERS: dict[str, str | int] = {
    "UP": "w", "DOWN": "s", "LEFT": "a", "RIGHT": "d", "FIRE": " ", "NOOP": "e"
}  # fmt: skip
# Codes of the arrow keys in pygame, which need not be there to name them.
_ARROWS = {"UP": 0x40000052, "DOWN": 0x40000051, "LEFT": 0x40000050, "RIGHT": 0x4000004F}
TURNED = {"Pong": {"RIGHT": "UP", "LEFT": "DOWN"}}
"""Games whose things move another way on the screen than the names of their actions say."""


def key_table(game: str, meanings: Sequence[str]) -> dict[tuple[str | int, ...], int]:
    """Return the keys held together for every action, as `gymnasium.utils.play` reads them.

    They are ALE's, w a s d, space and e for no-op, and beside them the arrows. Where RIGHT moves up
    on the screen, as in Pong, the keys that point up do so too.

    Args:
        game: name of an ALE game.
        meanings: name of every action, in the order of the action space.

    Example:
        >>> key_table("Freeway", ["NOOP", "UP"])
        {('e',): 0, ('w',): 1, (1073741906,): 1}
    """
    layouts = [_LETTERS, {**_LETTERS, **_ARROWS}]
    turned = TURNED.get(game, {})
    layouts += [{**keys, **{word: keys[way] for word, way in turned.items()}} for keys in layouts]
    return {
        tuple(key for word, key in keys.items() if word in meaning): action
        for action, meaning in enumerate(meanings)
        for keys in layouts
    }
