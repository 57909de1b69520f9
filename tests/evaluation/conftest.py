import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def draw():
    """Return a function that draws Pong's field small; objects are given by raw top and left."""

    def draw_field(*balls, own=None, opponent=None):
        raw = np.full((210, 160, 3), (144, 72, 17), np.uint8)
        raw[24:34] = raw[194:] = 236
        if own is not None:
            raw[own : own + 16, 140:144] = (92, 186, 92)
        if opponent is not None:
            raw[opponent : opponent + 16, 16:20] = (213, 130, 74)
        for top, left in balls:
            raw[top : top + 4, left : left + 2] = 236
        return cv2.resize(raw, (64, 64), interpolation=cv2.INTER_AREA)

    return draw_field


@pytest.fixture(scope="session")
def step_with_ram():
    """Return a function that steps a real game: its frame, and the RAM of both raw ones in it."""

    def step(env, action):
        before = _ram_one_raw_frame_early(env, action)
        obs, _, terminated, _, _ = env.step(action)
        assert not terminated
        return obs, (before, env.ale.getRAM())

    return step


def _ram_one_raw_frame_early(env, action):
    ale = env.ale
    start = ale.cloneState(include_rng=True)
    for _ in range(env.frame_skip - 1):
        ale.act(ale.getMinimalActionSet()[action])
    ram = ale.getRAM()
    ale.restoreState(start)
    return ram
