import ale_py
import gymnasium as gym
import pygame
import pytest

from genie_gym.envs.keys import key_table
from genie_gym.envs.real import RealEnv

gym.register_envs(ale_py)

UP, DOWN, LEFT, RIGHT = (getattr(pygame, f"K_{name}") for name in ("UP", "DOWN", "LEFT", "RIGHT"))


def by_keys(table):
    return {frozenset(keys): action for keys, action in table.items()}


@pytest.mark.parametrize("game", ["Pong", "Breakout", "Freeway", "MsPacman", "Seaquest"])
def test_the_letters_are_those_of_ale(game):
    ale = gym.make(f"ALE/{game}-v5").unwrapped
    table = by_keys(key_table(game, ale.get_action_meanings()))
    assert by_keys(ale.get_keys_to_action()).items() <= table.items()
    assert table == by_keys(RealEnv(game).get_keys_to_action())


def test_arrows_stand_beside_the_letters():
    meanings = ["NOOP", "FIRE", "UP", "UPRIGHT", "DOWNLEFTFIRE"]
    assert by_keys(key_table("Seaquest", meanings)) == by_keys({
        ("e",): 0,
        (" ",): 1,
        ("w",): 2,
        (UP,): 2,
        ("w", "d"): 3,
        (UP, RIGHT): 3,
        ("s", "a", " "): 4,
        (DOWN, LEFT, " "): 4,
    })  # fmt: skip


def test_in_pong_up_is_right_and_down_is_left():
    meanings = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
    table = by_keys(key_table("Pong", meanings))
    for keys, action in ((("w", "d", UP, RIGHT), 2), (("s", "a", DOWN, LEFT), 3)):
        assert {table[frozenset([key])] for key in keys} == {action}
        assert {table[frozenset([key, " "])] for key in keys} == {action + 2}
    assert len(table) == 2 + 16
