import signal
import sys

import gymnasium as gym
import numpy as np
import pygame
import pytest

from collectors import record
from collectors.episodes import make_player
from collectors.human_player import HumanPlayer
from collectors.policies import make_policy
from collectors.rendered_env import RenderedEnv
from genie_gym.data.hdf5 import Recording
from genie_gym.data.repair import repair
from genie_gym.data.verify import find_faults
from genie_gym.envs.real import RealEnv
from genie_gym.errors import ConfigError, DataError, GameError


def down(*keys):
    return [pygame.event.Event(pygame.KEYDOWN, key=key) for key in keys]


def up(*keys):
    return [pygame.event.Event(pygame.KEYUP, key=key) for key in keys]


D, A, SPACE, ESCAPE = pygame.K_d, pygame.K_a, pygame.K_SPACE, pygame.K_ESCAPE


@pytest.fixture
def fingers(monkeypatch):
    """Return a list to be filled: the events that happen while each frame is shown.

    They happen on the clock's tick, which does not wait; `rates` lists what it was asked for.
    """
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    # Whoever starts the tests may have told them to ignore Ctrl-C.
    old_handler = signal.signal(signal.SIGINT, signal.default_int_handler)

    class Fingers(list):
        def __init__(self):
            self.rates = []

        def tick(self, fps):
            self.rates.append(fps)
            for event in self.pop(0) if self else []:
                pygame.event.post(event)

    fingers = Fingers()
    monkeypatch.setattr(pygame.time, "Clock", lambda: fingers)
    make_player.cache_clear()  # the last test's player holds the last test's clock
    yield fingers
    pygame.display.quit()
    signal.signal(signal.SIGINT, old_handler)


def recorded(folder, game, **options):
    record(game, folder, policy="human", progress=False, **options)
    return Recording.open(folder)


def test_the_recorded_actions_are_those_of_the_keys_held(fingers, tmp_path):
    # Held and let go, two keys together, one of no use, and a tap within one frame.
    fingers += [down(D), [], down(SPACE), up(D), up(SPACE), down(pygame.K_x), down(A) + up(A), []]
    recording = recorded(tmp_path, "Pong", steps=8)
    names = [recording.action_meanings[action] for action in recording.load().actions[:-1]]
    assert names == ["RIGHT", "RIGHT", "RIGHTFIRE", "FIRE", "NOOP", "NOOP", "LEFT", "NOOP"]
    assert [episode.policy for episode in recording.episodes] == ["human"]
    assert fingers.rates == [15.0] * 8


def test_arrows_of_an_old_table_and_no_key_at_all_play_mountain_car(fingers, tmp_path):
    fingers += [[], down(pygame.K_RIGHT), down(pygame.K_LEFT), up(pygame.K_RIGHT)]
    recording = recorded(tmp_path, "gym:MountainCar-v0", steps=4)
    # 1 is its idling; both arrows together are in its table too.
    assert recording.load().actions.tolist() == [1, 2, 1, 0, -1]
    assert fingers.rates == [30] * 4


@pytest.mark.parametrize("size", [64, 200, None])
def test_a_frame_is_shown_enlarged_without_blur(fingers, size):
    env = RealEnv("Pong", frame_size=size)
    obs, _ = env.reset(seed=0)
    player = HumanPlayer(env)
    player.reset(np.random.default_rng(0))
    assert player.act(obs) == 0
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    factor = {64: 10, 200: 3, None: 3}[size]
    np.testing.assert_array_equal(shown, obs.repeat(factor, axis=0).repeat(factor, axis=1))


@pytest.mark.parametrize("frame_skip", [1, 7, 120])
def test_the_pace_is_the_consoles(fingers, frame_skip):
    env = RealEnv("Pong", frame_skip=frame_skip)
    HumanPlayer(env).act(env.reset(seed=0)[0])
    assert fingers.rates == [60 / frame_skip]


QUIT = [pygame.event.Event(pygame.QUIT)]


@pytest.mark.parametrize("event", [down(ESCAPE), QUIT, [*down(ESCAPE), *QUIT]])
def test_escape_and_closing_the_window_end_the_episode_as_ctrl_c_does(fingers, tmp_path, event):
    fingers += [down(D), [], down(SPACE) + event]
    with pytest.raises(KeyboardInterrupt):
        recorded(tmp_path, "Pong", steps=9)
    rows = Recording.open(tmp_path).load()
    assert len(rows.actions) == 4 and rows.truncations.tolist() == [False, False, True, False]
    assert len(fingers.rates) == 3 and not pygame.display.get_init()

    # The same player goes on in a new window, with no key held; what was played is kept.
    recording = recorded(tmp_path, "Pong", steps=9, resume=True)
    assert [episode.length - 1 for episode in recording.episodes] == [3, 6]
    assert recording.load().actions.tolist()[4:] == [0] * 6 + [-1]
    assert pygame.display.get_init()


def test_a_gap_in_what_a_person_played_is_not_filled_by_other_play(fingers, tmp_path):
    options = {"max_episode_steps": 10, "shard_steps": 10}
    assert len(recorded(tmp_path, "Pong", steps=30, **options).shards) == 3
    (tmp_path / "shard-00001.h5").write_bytes(b"spoilt")
    repair(tmp_path)
    with pytest.raises(DataError, match=r"shard-00001.h5 is not there, and a person played it"):
        recorded(tmp_path, "Pong", steps=30, resume=True, **options)
    assert find_faults(tmp_path) == []
    assert [episode.episode_id for episode in Recording.open(tmp_path).episodes] == [0, 2]


def test_a_person_takes_part_in_a_mixture(fingers, tmp_path):
    fingers += [down(D)]
    options = {"steps": 60, "max_episode_steps": 10, "progress": False}
    record("Pong", tmp_path, policy="mixed:human=0.5,random=0.5", **options)
    recording = Recording.open(tmp_path)
    policies = [episode.policy for episode in recording.episodes]
    assert set(policies) == {"human", "random"}
    rows = recording.load()
    for episode in recording.episodes:
        part = rows.actions[episode.start : episode.start + episode.length - 1]
        # The key stays down to the end.
        assert (part == 2).all() == (episode.policy == "human")


@pytest.mark.parametrize("policy", ["human", "mixed:human=1,random=1"])
def test_a_person_plays_one_environment(fingers, tmp_path, policy):
    with pytest.raises(ConfigError, match=r"needs num_envs 1, got 2: a person plays one game"):
        record("Pong", tmp_path / "out", steps=5, policy=policy, num_envs=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_an_environment_without_a_key_table_is_refused(fingers, env_id):
    text = rf"gym:{env_id} cannot be played by keyboard: it needs Discrete actions, and has .*keys"
    with pytest.raises(GameError, match=text):
        HumanPlayer(RenderedEnv(env_id))


def test_actions_that_do_not_begin_at_0_are_counted_from_0(fingers):
    class Late(gym.Env):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
        action_space = gym.spaces.Discrete(2, start=5)
        observation_space = gym.spaces.Box(0, 1, (1,))
        render_mode = "rgb_array"

        def __init__(self, render_mode=None):
            """Take a render mode, as Gymnasium passes it."""

        def reset(self, *, seed=None, options=None):
            """Return nothing of interest."""
            return np.zeros(1, np.float32), {}

        def render(self):
            """Return a black frame."""
            return np.zeros((8, 8, 3), np.uint8)

        def get_keys_to_action(self):
            """Return a table with the three ways of writing keys."""
            return {"a": 6, ord("d"): 5, ("w", "a"): 5}

    gym.register("Late-v0", Late)
    try:
        player = HumanPlayer(RenderedEnv("Late-v0"))
        fingers += [down(A), down(pygame.K_w), up(A, pygame.K_w) + down(D)]
        frame = np.zeros((64, 64, 3), np.uint8)
        assert [player.act(frame) for _ in range(3)] == [1, 0, 0]
        assert fingers.rates == [5] * 3
    finally:
        gym.registry.pop("Late-v0")


def test_without_pygame_the_command_that_installs_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(ConfigError, match=r"needs the package pygame-ce.*pip install pygame-ce"):
        record("Pong", tmp_path / "out", steps=5, policy="human")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("driver", ["offscreen", "no-such-driver"])
def test_without_a_screen_nothing_is_recorded(monkeypatch, tmp_path, driver):
    monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    with pytest.raises(ConfigError, match=r"policy 'human' needs a screen: .*Record on a desktop"):
        record("Pong", tmp_path / "out", steps=5, policy="human")
    assert not (tmp_path / "out").exists()


def test_a_person_plays_only_while_it_is_recorded():
    with pytest.raises(ConfigError, match="'human' plays only while genie-gym collect records"):
        make_policy("human", "Pong", 6)
