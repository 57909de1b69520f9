"""The Atari games that ale-py ships, and the ids that name them."""

from genie_gym.errors import GameError, did_you_mean

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


def world_id(game: str) -> str:
    """Return the Gymnasium id of a game's learned world: "Pong" gives "GenieWorld-Pong-v0"."""
    return f"GenieWorld-{game_of(game)}-v0"
