import os
import sys
from ctypes.util import find_library

import gymnasium as gym
import numpy as np
import pytest

from collectors import record
from collectors.rendered_env import RenderedEnv
from genie_gym.data.hdf5 import Recording
from genie_gym.data.verify import find_faults
from genie_gym.errors import ConfigError, GameError

MODULE = """
import gymnasium as gym, numpy as np

class Counter(gym.Env):
    metadata = {"render_modes": ["rgb_array"]}
    action_space = gym.spaces.Discrete(3, start=5)
    observation_space = gym.spaces.Box(0, 1, (1,))
    def __init__(self, render_mode=None):
        self.render_mode = render_mode
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.shade = int(self.np_random.integers(100))
        return np.zeros(1, np.float32), {}
    def step(self, action):
        self.shade += 1
        return np.zeros(1, np.float32), float(action), False, False, {}
    def render(self):
        return np.full((6, 4, 3), self.shade, np.uint8)

class Blind(Counter):
    metadata = {"render_modes": ["ansi"]}

class Grey(Counter):
    def render(self):
        return np.zeros((6, 4), np.uint8)

class Many(Counter):
    action_space = gym.spaces.MultiDiscrete([2, 2])

class Broken(Counter):
    def step(self, action):
        return np.zeros(1, np.float32), 1e39 if self.shade > 100 else 0.0, False, False, {}
    def reset(self, *, seed=None, options=None):
        self.shade = 101
        return np.zeros(1, np.float32), {}

for env in (Counter, Blind, Grey, Many, Broken):
    gym.register(f"Test{env.__name__}-v0", env, max_episode_steps=7)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that registers environments, to be imported by name."""
    (tmp_path / "rendered_env_test_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "rendered_env_test_module"
    sys.modules.pop("rendered_env_test_module", None)
    for env in ("Counter", "Blind", "Grey", "Many", "Broken"):
        gym.registry.pop(f"Test{env}-v0", None)


def test_any_environment_of_a_named_module_is_recorded(module, tmp_path):
    options = {"steps": 16, "frame_size": 8, "env_module": module, "progress": False}
    record("gym:TestCounter-v0", tmp_path / "out", **options)
    recording = Recording.open(tmp_path / "out")
    rows = recording.load()
    assert [episode.length - 1 for episode in recording.episodes] == [7, 7, 2]
    assert rows.actions.dtype == np.int16 and rows.frames.shape == (19, 8, 8, 3)
    for episode in recording.episodes:
        part = slice(episode.start, episode.start + episode.length)
        # Every step makes the picture one level brighter.
        np.testing.assert_array_equal(np.diff(rows.frames[part, 0, 0, 0]), 1)
        np.testing.assert_array_equal(rows.rewards[part][:-1], rows.actions[part][:-1] + 5)
        assert rows.actions[part][-1] == -1
    starts = [rows.frames[episode.start, 0, 0, 0] for episode in recording.episodes]
    assert len(set(starts)) == 3
    expected = {"env_id": "TestCounter-v0", "policy": "random", "sticky": 0.0, "frame_skip": 1}
    assert {key: recording.attributes[key] for key in expected} == expected
    assert recording.action_meanings == ["5", "6", "7"] and "fps" not in recording.attributes


@pytest.mark.filterwarnings("ignore:.*not in the possible render_modes")
@pytest.mark.parametrize(
    ("env_id", "text"),
    [
        ("TestBlind-v0", r"it must render 'rgb_array', and renders \['ansi'\]"),
        ("TestGrey-v0", r"frames must be uint8 \(H, W, 3\), got uint8 \(6, 4\)"),
        ("TestMany-v0", r"actions must be Discrete, or a Box .* got MultiDiscrete"),
        ("TestNone-v0", "it cannot be made"),
    ],
)
def test_what_cannot_be_recorded_is_refused(module, tmp_path, env_id, text):
    with pytest.raises(GameError, match=f"gym:{env_id} cannot be recorded: .*{text}"):
        record(f"gym:{env_id}", tmp_path / "out", steps=5, env_module=module, progress=False)
    assert not (tmp_path / "out").exists()


def test_a_module_that_cannot_be_imported_is_refused():
    with pytest.raises(ConfigError, match="env_module 'no_such_module' cannot be imported"):
        RenderedEnv("CartPole-v1", env_module="no_such_module")


@pytest.mark.parametrize(
    ("option", "value"),
    [("sticky", 0.5), ("noop_max", 1), ("frame_skip", 4), ("max_pool", True)],
)
def test_options_of_the_emulator_are_refused(tmp_path, option, value):
    with pytest.raises(ConfigError, match=f"{option} is an option of the Atari emulator"):
        record("gym:CartPole-v1", tmp_path, steps=5, **{option: value})


def test_cart_pole_is_recorded_and_resumed(tmp_path):
    pytest.importorskip("pygame")
    options = {"steps": 40, "shard_steps": 15, "progress": False}
    record("gym:CartPole-v1", tmp_path / "one", **options)
    record("gym:CartPole-v1", tmp_path / "two", **options)
    first, second = (Recording.open(tmp_path / name).load() for name in ("one", "two"))
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.actions, second.actions)
    assert first.frames.shape[1:] == (64, 64, 3) and first.frames.std() > 5
    assert first.rewards.sum() == 40 and first.terminations.any()
    assert record("gym:CartPole-v1", tmp_path / "one", resume=True, **options).num_steps == 40


def test_vector_actions_are_float32_rows_that_end_in_nan(tmp_path):
    pytest.importorskip("pygame")
    record("gym:Pendulum-v1", tmp_path, steps=30, progress=False)
    recording = Recording.open(tmp_path)
    rows = recording.load()
    assert rows.actions.dtype == np.float32 and rows.actions.shape == (31, 1)
    assert np.isnan(rows.actions[-1]).all() and (abs(rows.actions[:-1]) <= 2).all()
    assert recording.action_meanings is None and recording.attributes["fps"] == 30.0


def test_what_is_recorded_is_found_whole(tmp_path):
    pytest.importorskip("pygame")
    for env_id in ("CartPole-v1", "Pendulum-v1"):
        folder = tmp_path / env_id
        record(f"gym:{env_id}", folder, steps=30, frame_size=16, progress=False)
        assert find_faults(folder) == []


@pytest.fixture
def headless(tmp_path, monkeypatch):
    """Take screen and choice of renderer away, and let MuJoCo log into the test's folder."""
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone too
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("mujoco", reason="mujoco is not installed: genie-gym[dev]")


@pytest.mark.skipif(
    sys.platform == "linux" and find_library("EGL") is None,
    reason="MuJoCo cannot render without a screen: no libEGL (apt install libegl1 libgl1)",
)
@pytest.mark.usefixtures("headless")
def test_mujoco_is_recorded_without_a_screen(tmp_path):
    options = {"steps": 30, "max_episode_steps": 20, "progress": False}
    record("gym:HalfCheetah-v5", tmp_path / "out", **options)
    recording = Recording.open(tmp_path / "out")
    rows = recording.load()
    assert rows.actions.dtype == np.float32 and rows.actions.shape == (32, 6)
    last_rows = [20, 31]
    assert np.isnan(rows.actions[last_rows]).all()
    assert (abs(np.delete(rows.actions, last_rows, axis=0)) <= 1).all()
    assert rows.frames.shape == (32, 64, 64, 3) and rows.frames.std() > 50
    # The body moves before a floor that lies still.
    assert (rows.frames[1:20] != rows.frames[:19]).any((1, 2, 3)).all()
    assert rows.rewards[:-1].std() > 0.1 and recording.attributes["fps"] == 20
    assert find_faults(tmp_path / "out") == []
    if sys.platform == "linux":
        assert os.environ["MUJOCO_GL"] == "egl"


# The viewer that could not be made complains once more when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("headless")
@pytest.mark.skipif(sys.platform != "linux", reason="EGL is for Linux")
def test_without_egl_the_cure_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco.egl", None)
    text = r"gym:InvertedPendulum-v5 cannot be recorded: .*MUJOCO_GL=egl: .*apt install libegl1"
    with pytest.raises(GameError, match=text):
        record("gym:InvertedPendulum-v5", tmp_path / "out", steps=5)
    assert not (tmp_path / "out").exists()


def test_a_reward_that_is_not_finite_ends_the_recording(module, tmp_path):
    text = r"gym:TestBroken-v0 earned a reward of 1e\+39 at step 0 of episode 0; .* finite float32"
    for num_envs in (1, 2):
        with pytest.raises(GameError, match=text):
            record(
                "gym:TestBroken-v0",
                tmp_path / f"{num_envs}",
                steps=20,
                env_module=module,
                num_envs=num_envs,
                progress=False,
            )
