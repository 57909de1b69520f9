"""The Atari games that ale-py ships, and the ids that name them."""

from genie_gym.errors import ConfigError, GameError, did_you_mean

MAX_STEPS = 27_000
"""Steps after which a real game is cut where nothing else is asked for: half an hour of play, as
Machado et al. 2018 count."""
MAX_IMAGINED_STEPS = 5_000
"""The same for an imagined game that is played to its end: no end may be told."""

# Listed by hand, so that importing this costs no emulator; a test compares it with ale-py.
# fmt: off
GAMES = (
    "Adventure", "AirRaid", "Alien", "Amidar", "Assault", "Asterix", "Asteroids", "Atlantis",
    "Atlantis2", "Backgammon", "BankHeist", "BasicMath", "BattleZone", "BeamRider", "Berzerk",
    "Blackjack", "Bowling", "Boxing", "Breakout", "Carnival", "Casino", "Centipede",
    "ChopperCommand", "CrazyClimber", "Crossbow", "Darkchambers", "Defender", "DemonAttack",
    "DonkeyKong", "DoubleDunk", "Earthworld", "ElevatorAction", "Enduro", "Entombed", "Et",
    "FishingDerby", "FlagCapture", "Freeway", "Frogger", "Frostbite", "Galaxian", "Gopher",
    "Gravitar", "Hangman", "HauntedHouse", "Hero", "HumanCannonball", "IceHockey", "Jamesbond",
    "JourneyEscape", "Kaboom", "Kangaroo", "KeystoneKapers", "KingKong", "Klax", "Koolaid",
    "Krull", "KungFuMaster", "LaserGates", "LostLuggage", "MarioBros", "MiniatureGolf",
    "MontezumaRevenge", "MrDo", "MsPacman", "NameThisGame", "Othello", "Pacman", "Phoenix",
    "Pitfall", "Pitfall2", "Pong", "Pooyan", "PrivateEye", "Qbert", "Riverraid", "RoadRunner",
    "Robotank", "Seaquest", "SirLancelot", "Skiing", "Solaris", "SpaceInvaders", "SpaceWar",
    "StarGunner", "Superman", "Surround", "Tennis", "Tetris", "TicTacToe3D", "TimePilot",
    "Trondead", "Turmoil", "Tutankham", "UpNDown", "Venture", "VideoCheckers", "VideoChess",
    "VideoCube", "VideoPinball", "WizardOfWor", "WordZapper", "YarsRevenge", "Zaxxon",
)
# fmt: on

FLIPS: dict[str, dict[str, tuple[str, str]]] = {
    # The ring is seen from above and both boxers may stand anywhere in it. The clock and the score
    # turn upside down with it, and decide nothing within a clip.
    "vertical": {"Boxing": ("UP", "DOWN")},
    "horizontal": {
        # Walls, bricks and paddle are their own mirror images, and the ball flies either way.
        "Breakout": ("LEFT", "RIGHT"),
        # So are the mazes, and the tunnels join both sides. Only digits and lives read backwards.
        "MsPacman": ("LEFT", "RIGHT"),
    },
}
"""Games that a mirror leaves the same game, with the words that change places in action names.

Left out on purpose: Pong, left to right, because the player's is the right paddle; top to bottom,
because its RIGHT moves up and its LEFT down, so that names would say the wrong thing, and the court
does not lie in the middle of the picture. Freeway's lanes each have a direction of their own.
"""


def game_of(env_id: str) -> str:
    """Return the game that an id or a name means, spelled as ALE spells it.

    Args:
        env_id: "ALE/Pong-v5", "Pong" or "pong".

    Raises:
        GameError: no ALE game has this name.

    Example:
        >>> game_of("ALE/Pong-v5"), game_of("mspacman")
        ('Pong', 'MsPacman')
    """
    name = str(env_id).removeprefix("ALE/").removesuffix("-v5")
    spelled = {game.lower(): game for game in GAMES}
    if name.lower() not in spelled:
        suggestion = did_you_mean(name.capitalize(), GAMES)
        raise GameError(
            f"unknown game {env_id!r}.{suggestion} There are {len(GAMES)}: genie_gym.games.GAMES"
        )
    return spelled[name.lower()]


def swapped_words(game: str, flip: str) -> tuple[str, str]:
    """Return the two words that change places in a game's action names when it is mirrored.

    Args:
        game: name of an ALE game.
        flip: "horizontal" (left to right) or "vertical" (top to bottom).

    Raises:
        ConfigError: the mirror image would be another game.

    Example:
        >>> swapped_words("Breakout", "horizontal")
        ('LEFT', 'RIGHT')
    """
    game, allowed = game_of(game), FLIPS[flip]
    if game not in allowed:
        raise ConfigError(
            f"augment.{flip}_flip must be false for {game}: its mirror image is another game. "
            f"Games that allow it: {sorted(allowed)}"
        )
    return allowed[game]


def world_id(game: str) -> str:
    """Return the Gymnasium id of a game's learned world: "Pong" gives "GenieWorld-Pong-v0"."""
    return f"GenieWorld-{game_of(game)}-v0"
