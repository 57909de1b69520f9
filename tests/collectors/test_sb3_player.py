from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import Env
from gymnasium.spaces import Box, Discrete
from stable_baselines3 import A2C, DQN, PPO

from collectors import record
from collectors.policies import make_policy
from genie_gym.data.hdf5 import Recording
from genie_gym.data.manifest import file_sha256, read_manifest, write_manifest
from genie_gym.errors import ConfigError, DataError

THREE = Discrete(3)
BOX = Box(np.float32([-1, 0]), np.float32([1, 0.1]))


class Blank(Env):
    """Black frames of any shape, to save untrained models for."""

    def __init__(self, shape, action_space=THREE):
        self.observation_space = Box(0, 255, shape, np.uint8)
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        """Return a black observation."""
        return np.zeros(self.observation_space.shape, np.uint8), {}


def save(folder, shape=(64, 64, 3), algorithm=PPO, actions=THREE, seed=0, **options):
    """Save an untrained model; return its name as a policy."""
    # A linear policy is enough, and built in no time.
    options["policy_kwargs"] = {"net_arch": [], **options.pop("policy_kwargs", {})}
    if algorithm is PPO:
        options |= {"n_steps": 2, "batch_size": 2}
    model = algorithm("MlpPolicy", Blank(shape, actions), seed=seed, **options)
    if algorithm is DQN:
        model.exploration_rate = 0.5
    model.save(folder / "model.zip")
    return f"sb3:{folder / 'model.zip'}"


def frames(shade=9, count=30):
    return np.random.default_rng(shade).integers(0, 256, (count, 64, 64, 3), np.uint8)


def actions_of(policy, seed):
    policy.reset(np.random.default_rng(seed))
    return [policy.act(frame) for frame in frames()]


def global_state():
    """Return the state of NumPy's and torch's generators; Python's own serves the shape checks."""
    return np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


ALGORITHMS = pytest.mark.parametrize(
    ("algorithm", "actions"),
    [(PPO, THREE), (A2C, THREE), (DQN, THREE), (PPO, BOX), (A2C, BOX)],
    ids=["ppo", "a2c", "dqn", "ppo-box", "a2c-box"],
)


def player(folder, algorithm, actions, **options):
    buffer = {"buffer_size": 10} if algorithm is DQN else {}
    name = save(folder, algorithm=algorithm, actions=actions, **buffer, **options)
    return make_policy(name, "gym:Any-v0", actions if isinstance(actions, Box) else 3)


@ALGORITHMS
def test_two_interleaved_players_play_what_each_plays_alone(tmp_path, algorithm, actions):
    players = [player(tmp_path, algorithm, actions) for _ in range(2)]
    alone = [actions_of(policy, seed) for seed, policy in enumerate(players)]
    for seed, policy in enumerate(players):
        policy.reset(np.random.default_rng(seed))
    state = global_state()
    together = [[policy.act(frame) for policy in players] for frame in frames()]
    np.testing.assert_array_equal(np.swapaxes(together, 0, 1), alone)
    assert not np.array_equal(*alone)
    assert state == global_state()


def test_loading_a_model_seeds_no_global_generator(tmp_path):
    name = save(tmp_path)
    state = np.random.get_state()[1].tolist()
    make_policy(name, "Freeway", 3)
    assert state == np.random.get_state()[1].tolist()


@ALGORITHMS
def test_actions_are_drawn_as_often_as_predict_draws_them(tmp_path, algorithm, actions):
    policy = player(tmp_path, algorithm, actions)
    frame = frames(count=1)[0]
    policy.reset(np.random.default_rng(0))
    torch.manual_seed(0), np.random.seed(0)
    ours = np.array([policy.act(frame) for _ in range(1000)])
    theirs = np.array([policy._model.predict(frame)[0] for _ in range(1000)])
    if isinstance(actions, Box):
        assert ours.dtype == np.float32 and all(actions.contains(action) for action in ours)
        # Clipped normals of deviation 1 in a span of 2 or less: four standard errors are 0.15.
        np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.15)
        np.testing.assert_allclose(ours.std(0), theirs.std(0), atol=0.15)
        # A good part of both lies on the bounds.
        np.testing.assert_allclose(
            (ours == actions.high).mean(0), (theirs == actions.high).mean(0), atol=0.1
        )
    else:
        counts = [np.bincount(values, minlength=3) / 1000 for values in (ours, theirs)]
        # Four standard errors of the difference of two shares.
        np.testing.assert_allclose(*counts, atol=0.09)


def test_a_squashed_model_stays_within_the_box(tmp_path):
    # gSDE sums its noise over 12,288 pixels: this makes a deviation of about 1.
    kwargs = {"squash_output": True, "log_std_init": -4.0}
    policy = player(tmp_path, PPO, BOX, use_sde=True, policy_kwargs=kwargs)
    actions = np.array(actions_of(policy, 0))
    assert all(BOX.contains(action) for action in actions)
    # Squashed and not clipped: all over the Box, and never on its bounds.
    assert (BOX.low < actions).all() and (actions < BOX.high).all()
    assert (actions.std(0) > 0.2 * (BOX.high - BOX.low)).all()
    np.testing.assert_array_equal(actions, actions_of(policy, 0))


@pytest.mark.slow  # each worker imports torch
def test_two_workers_record_what_one_does(tmp_path):
    policy = save(tmp_path, (16, 16, 3), actions=Box(-2, 2, (1,)))
    options = {"steps": 70, "max_episode_steps": 20, "frame_size": 16, "progress": False}
    for num_envs in (1, 2):
        folder = tmp_path / str(num_envs)
        record("gym:Pendulum-v1", folder, policy=policy, num_envs=num_envs, **options)
    one, two = (Recording.open(tmp_path / number).load() for number in "12")
    for key in ("frames", "actions", "rewards", "terminations", "truncations", "episode_ids"):
        np.testing.assert_array_equal(getattr(one, key), getattr(two, key))


@pytest.mark.parametrize("policy", ["{}", "mixed:random=0.5,{}=0.5"])
def test_a_recording_is_not_resumed_with_a_changed_model(tmp_path, policy):
    policy = policy.format(save(tmp_path, (8, 8, 3), actions=Discrete(2)))
    old_hash = file_sha256(tmp_path / "model.zip")
    options = {"steps": 30, "frame_size": 8, "policy": policy, "progress": False}
    record("gym:CartPole-v1", tmp_path / "out", **options)
    assert read_manifest(tmp_path / "out").settings["model_sha256"] == old_hash
    record("gym:CartPole-v1", tmp_path / "out", resume=True, **options)

    save(tmp_path, (8, 8, 3), actions=Discrete(2), seed=1)
    new_hash = file_sha256(tmp_path / "model.zip")
    text = rf"model_sha256='{old_hash[:12]}\.\.\.', but is .*='{new_hash[:12]}\.\.\.'\. Resume"
    with pytest.raises(DataError, match=text):
        record("gym:CartPole-v1", tmp_path / "out", resume=True, **options)


def test_a_manifest_that_does_not_know_the_model_is_resumed(tmp_path):
    policy = save(tmp_path, (8, 8, 3), actions=Discrete(2))
    options = {"steps": 30, "frame_size": 8, "policy": policy, "progress": False}
    record("gym:CartPole-v1", tmp_path / "out", **options)
    manifest = read_manifest(tmp_path / "out")
    settings = {key: value for key, value in manifest.settings.items() if key != "model_sha256"}
    write_manifest(tmp_path / "out", replace(manifest, settings=settings))
    assert record("gym:CartPole-v1", tmp_path / "out", resume=True, **options).num_steps == 30


@pytest.mark.parametrize("shape", [(64, 64, 3), (64, 64, 12), (6, 64, 64)])
def test_a_model_plays_the_same_again_from_the_same_seed(tmp_path, shape):
    policy = make_policy(save(tmp_path, shape), "Freeway", 3)
    first = actions_of(policy, 0)
    assert first == actions_of(policy, 0) != actions_of(policy, 1)
    assert set(first) <= {0, 1, 2} and all(type(action) is int for action in first)
    assert policy.description.startswith("sb3:model.zip(")


def test_frames_are_stacked_oldest_first_on_black(tmp_path, monkeypatch):
    policy = make_policy(save(tmp_path, (6, 64, 64)), "Freeway", 3)
    seen, obs_to_tensor = [], policy._model.policy.obs_to_tensor
    monkeypatch.setattr(
        policy._model.policy, "obs_to_tensor", lambda obs: seen.append(obs) or obs_to_tensor(obs)
    )
    policy.reset(np.random.default_rng(0))
    for shade in (10, 20):
        policy.act(np.full((64, 64, 3), shade, np.uint8))
    assert [obs[:, 5, 5].tolist() for obs in seen] == [[0] * 3 + [10] * 3, [10] * 3 + [20] * 3]


def test_a_dqn_plays_and_takes_its_part_in_a_mixture(tmp_path):
    name = save(tmp_path, algorithm=DQN, buffer_size=10)
    policy = make_policy(f"mixed:{name}=1,random=1", "Freeway", 3)
    assert set(actions_of(policy, 0)) <= {0, 1, 2}


@pytest.mark.parametrize("shape", [(84, 84, 4), (64, 64, 4), (4, 64, 64), (84, 84, 3)])
def test_a_model_of_other_frames_is_refused(tmp_path, shape):
    name = save(tmp_path, shape)
    text = r"observes Box.*, but the recorder shows uint8 RGB frames of \(64, 64, 3\).*grey frames"
    with pytest.raises(ConfigError, match=text):
        make_policy(name, "Freeway", 3)


def test_a_model_of_another_game_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"acts in Discrete\(3\), but the game in Discrete\(6\)"):
        make_policy(save(tmp_path, (64, 64, 3)), "Pong", 6)


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.zip").write_text("no zip")
    with pytest.raises(ConfigError, match=r"this is no model of \['A2C', 'DQN', 'PPO'\]"):
        make_policy(f"sb3:{tmp_path / 'model.zip'}", "Pong", 6)
    with pytest.raises(ConfigError, match=r"there is no such file. Name the zip"):
        make_policy(f"sb3:{tmp_path / 'absent.zip'}", "Pong", 6)
