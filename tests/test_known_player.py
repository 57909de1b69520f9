"""The benchmark that lets one player play the real game and the imagined one."""

import re

import numpy as np
import pytest

ROW = r" +{name}  won +\d+\.\d\d \+- \d+\.\d\d  lost +\d+\.\d\d \+- \d+\.\d\d"


@pytest.fixture(scope="module")
def known_player(load_benchmark):
    return load_benchmark("known_player")


class Still:
    """A player that never moves."""

    def act(self, frames):
        """Ask for nothing."""
        return np.zeros(len(frames), np.int64)


def test_who_stands_still_loses_and_the_scripted_player_does_not(known_player):
    lost = known_player.play_real("Pong", 64, Still(), games=2, steps=130)
    assert (lost[0] == 0).all() and (lost[1] >= 2).all()
    scripted = known_player.Scripted("Pong", 6, 2)
    _, lost = known_player.play_real("Pong", 64, scripted, games=2, steps=130)
    assert lost.sum() == 0


def test_every_setting_has_a_row_and_one_seed_one_result(known_player, tiny_bundle, capsys):
    command = ["--world", str(tiny_bundle), "--games", "2", "--steps", "4"]
    outputs = []
    for _ in range(2):
        known_player.main([*command, "--settings", "1.0x1", "0.5x2"])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    rows = outputs[0].splitlines()[-3:]
    for row, name in zip(
        rows,
        ("the real game", r"temperature 1\.0, steps 1", r"temperature 0\.5, steps 2"),
        strict=True,
    ):
        assert re.fullmatch(ROW.format(name=name), row), row
