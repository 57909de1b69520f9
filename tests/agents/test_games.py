import numpy as np
import pytest
import torch

from genie_gym.agents.games import NUM_PARALLEL, OPENING_STEPS, play_imagined, play_real
from genie_gym.agents.policy import Policy, load_policy
from genie_gym.envs.real import RealEnv
from genie_gym.envs.slots import WorldEnvConfig
from genie_gym.errors import ConfigError, PolicyError


@pytest.fixture(scope="module")
def policy(trained):
    return load_policy(trained)


@pytest.fixture(scope="module")
def config(pipeline):
    return WorldEnvConfig(
        game="Pong", world=str(pipeline.bundle), max_episode_steps=6, num_maskgit_steps=1
    )


class Still(Policy):
    """Never moves; remembers what it saw first."""

    first = None

    def predict(self, obs, state=None, episode_start=None, deterministic=False):
        """Do nothing."""
        self.first = obs if self.first is None else self.first
        return np.zeros(len(obs), np.int64), None


def test_who_never_moves_loses_a_game_of_pong_by_21(policy):
    games = play_real(Still(policy.card, policy.network), 2, seed=0)
    assert games.returns.tolist() == [-21, -21]
    assert games.num_cut == 0
    env = RealEnv("Pong")
    env.reset(seed=1)
    length, is_over = 0, False
    while not is_over:
        *_, is_over, _, _ = env.step(0)
        length += 1
    assert games.lengths[1] == length
    figures = games.figures()
    assert figures["mean_return"] == -21 and figures["games"] == 2
    assert figures["points_per_1000_steps"] == -42_000 / games.lengths.sum()


def test_more_games_than_fit_at_once_are_all_played(policy):
    finished = []
    num_games = NUM_PARALLEL + 2
    games = play_real(policy, num_games, seed=3, max_steps=7, on_game=lambda: finished.append(1))
    assert games.lengths.tolist() == [7] * num_games and games.num_cut == num_games
    assert len(finished) == num_games


def test_imagined_games_open_as_real_ones_do(policy, config, world):
    still = Still(policy.card, policy.network)
    games = play_imagined(still, 2, config, seed=4)
    assert games.lengths.tolist() == [6, 6] and games.num_cut == 2
    env, clips = RealEnv("Pong"), []
    for seed in (4, 5):
        first, _ = env.reset(seed=seed)
        clips.append([first, *(env.step(0)[0] for _ in range(OPENING_STEPS))])
    no_ops = torch.zeros(2, OPENING_STEPS, dtype=torch.int64)
    begun = world.encode(torch.from_numpy(np.array(clips)), no_ops)
    np.testing.assert_array_equal(still.first, world.decode(begun).numpy())


def test_imagined_games_are_repeated_by_their_seed(policy, config):
    one, again, other = (play_imagined(policy, 3, config, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.returns, again.returns)
    assert one.lengths.sum() == other.lengths.sum() == 18


def test_what_cannot_be_played_is_refused(policy, config, pipeline):
    with pytest.raises(ConfigError, match="episodes must be at least 1, got 0"):
        play_real(policy, 0, seed=0)
    with pytest.raises(ConfigError, match="sticky must be a probability"):
        play_real(policy, 1, seed=0, sticky=2.0)
    endless = WorldEnvConfig(game="Pong", world=str(pipeline.bundle), max_episode_steps=None)
    with pytest.raises(ConfigError, match="an imagined game may never end"):
        play_imagined(policy, 1, endless, seed=0)
    latent = WorldEnvConfig(game="Pong", world=str(pipeline.bundle), action_mode="latent")
    with pytest.raises(
        PolicyError, match=r"has 6 actions, but the environment takes Discrete\(4\)"
    ):
        play_imagined(policy, 1, latent, seed=0)
