import hashlib

import numpy as np
import pytest
from gymnasium.spaces import Box

from collectors.policies import POLICIES, NoisyPolicy, RepeatPolicy, make_policy
from collectors.pong_player import PongPlayer, find_ball, find_paddle, reflect
from genie_gym.envs.real import RealEnv
from genie_gym.errors import ConfigError, GameError

OBS = np.zeros((64, 64, 3), np.uint8)


def actions_of(policy, seed, num_steps=500):
    policy.reset(np.random.default_rng(seed))
    return [policy.act(OBS) for _ in range(num_steps)]


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"human"}))
def test_a_policy_plays_the_same_again_from_the_same_seed(name):
    policy = make_policy(name, "Pong", 6)
    assert actions_of(policy, 0) == actions_of(policy, 0)


@pytest.mark.parametrize("name", ["random", "repeat", "mixed"])
def test_a_policy_plays_otherwise_from_another_seed(name):
    policy = make_policy(name, "Breakout", 4)
    assert actions_of(policy, 0) != actions_of(policy, 1)
    assert set(actions_of(policy, 0)) == set(range(4))


def test_the_repeat_policy_keeps_its_action_with_its_probability():
    actions = np.array(actions_of(RepeatPolicy(6, repeat_prob=0.9), 0, num_steps=5000))
    # A new draw hits the old action one time in six; three standard errors are 0.012.
    assert np.mean(actions[1:] == actions[:-1]) == pytest.approx(0.9 + 0.1 / 6, abs=0.012)


def test_the_probability_to_repeat_stands_in_the_name():
    for name, prob in {"repeat:0.5": 0.5, "repeat:0": 0.0, "repeat": 0.9}.items():
        actions = np.array(actions_of(make_policy(name, "Pong", 6), 0, num_steps=5000))
        expected = prob + (1 - prob) / 6
        assert np.mean(actions[1:] == actions[:-1]) == pytest.approx(expected, abs=0.025)
    for name in ("repeat:1", "repeat:often", "repeat:-0.1", "repeat:nan"):
        with pytest.raises(ConfigError, match=f"at least 0 and below 1, got '{name}'"):
            make_policy(name, "Pong", 6)


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.6])
def test_noise_comes_in_bursts_that_fill_their_share_of_the_steps(noise):
    class Silent:
        description = "silent"

        def reset(self, rng):
            pass

        def act(self, obs):
            return -1

    actions = np.array(actions_of(NoisyPolicy(Silent(), 6, noise=noise), 0, num_steps=20_000))
    assert np.mean(actions >= 0) == pytest.approx(noise, abs=0.04)
    is_burst_end = (actions[:-1] >= 0) & (actions[1:] != actions[:-1])
    assert np.sum(actions >= 0) / np.sum(is_burst_end) == pytest.approx(6.0, abs=0.7)


def test_the_mixed_policy_names_what_it_drew_and_draws_everything():
    policy = make_policy("mixed", "Pong", 6)
    names = []
    for seed in range(200):
        policy.reset(np.random.default_rng(seed))
        names.append(policy.description)
    assert set(names) == {
        "random",
        "repeat(0.9)",
        *(f"scripted(noise={noise})" for noise in (0, 0.1, 0.3, 0.6)),
    }
    # Half of 200, four standard deviations either way.
    assert sum(name.startswith("scripted") for name in names) == pytest.approx(100, abs=28)


def test_an_unknown_policy_is_refused_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"unknown policy 'scriptd'. Did you mean 'scripted'\?"):
        make_policy("scriptd", "Pong", 6)


@pytest.mark.parametrize("name", ["scripted", "mixed:scripted=1,random=1"])
def test_a_game_without_a_scripted_player_names_those_that_have_one(name):
    text = "'scripted' plays only Breakout, Freeway, Pong, got game 'Alien'. Take 'mixed', 'repeat'"
    with pytest.raises(GameError, match=text):
        make_policy(name, "Alien", 18)


@pytest.mark.parametrize(
    ("game", "shares"),
    [("Pong", "scripted=0.5,repeat=0.3,random=0.2"), ("Breakout", "repeat=0.6,random=0.4")],
)
def test_the_default_mixture_is_the_same_written_out(game, shares):
    default, written = make_policy("mixed", game, 4), make_policy(f"mixed:{shares}", game, 4)
    for seed in range(8):
        assert actions_of(default, seed, 50) == actions_of(written, seed, 50)
        assert default.description == written.description


def test_the_default_mixture_draws_what_it_always_drew():
    policy = make_policy("mixed", "Pong", 6)
    digest = hashlib.sha256()
    for seed in range(20):
        digest.update(repr((actions_of(policy, seed, 100), policy.description)).encode())
    assert digest.hexdigest()[:16] == "50c1596a72188e5a"


def test_shares_are_those_of_the_mixture():
    policy = make_policy("mixed:scripted=6,random=2,repeat=2", "Freeway", 3)
    names = []
    for seed in range(200):
        policy.reset(np.random.default_rng(seed))
        names.append(policy.description.split("(")[0])
    # Binomial: four standard deviations are 28 and 23.
    assert names.count("scripted") == pytest.approx(120, abs=28)
    assert names.count("random") == pytest.approx(40, abs=23)


@pytest.mark.parametrize("shares", ["", "random", "random=x", "random=0", "random=1,random=2"])
def test_a_mixture_that_cannot_be_read_is_refused(shares):
    text = "a mixture is written mixed:POLICY=SHARE,POLICY=SHARE, each of random, repeat"
    with pytest.raises(ConfigError, match=text):
        make_policy(f"mixed:{shares}", "Pong", 6)
    with pytest.raises(ConfigError, match=r"unknown policy 'radnom'. Did you mean 'random'"):
        make_policy("mixed:radnom=1", "Pong", 6)


def test_a_box_is_drawn_uniformly_within_its_bounds():
    low, high = np.array([-1, 2], np.float32), np.array([1, 10], np.float32)
    actions = np.array(actions_of(make_policy("random", "gym:Any-v0", Box(low, high)), 0, 2000))
    assert actions.dtype == np.float32
    assert (actions >= low).all() and (actions <= high).all()
    # Standard errors are 0.013 and 0.052.
    np.testing.assert_allclose(actions.mean(axis=0), [0, 6], atol=0.25)


def test_the_breakout_player_returns_the_ball_and_the_freeway_player_crosses():
    for game, max_steps, least in (("Breakout", 400, 5), ("Freeway", 500, 4)):
        env = RealEnv(game)
        player = make_policy("scripted", game, int(env.action_space.n))
        obs, _ = env.reset(seed=0)
        player.reset(np.random.default_rng(0))
        total = 0.0
        for _ in range(max_steps):
            obs, reward, *_ = env.step(player.act(obs))
            total += reward
        assert total >= least


@pytest.mark.parametrize("frame_size", [64, 84, None])
def test_ball_and_paddle_are_found_to_within_two_pixels(frame_size):
    env = RealEnv("Pong", noop_max=0, frame_size=frame_size)
    screen = RealEnv("Pong", noop_max=0, frame_size=None)
    env.reset(seed=0)
    screen.reset(seed=0)
    num_balls = 0
    for action in [0] * 60 + [2, 3, 3] * 20:
        obs, pixels = env.step(action)[0], screen.step(action)[0]
        field = pixels[34:194]
        paddle_rows = np.nonzero((field == (92, 186, 92)).all(-1))[0]
        ball_rows, ball_columns = np.nonzero((field == (236, 236, 236)).all(-1))
        assert find_paddle(obs) == pytest.approx(paddle_rows.mean() + 34.5, abs=2)
        if len(ball_rows) and 24 < ball_columns.min() and ball_columns.max() < 136:
            num_balls += 1
            expected = ball_columns.mean() + 0.5, ball_rows.mean() + 34.5
            assert find_ball(obs) == pytest.approx(expected, abs=2)
    assert num_balls > 30
    assert find_ball(np.zeros_like(obs)) is None


def test_a_path_is_folded_at_both_walls():
    heights = [36.0, 100.0, 192.0, 200.0, 26.0, 36.0 + 2 * 156.0]
    assert [reflect(y) for y in heights] == [36.0, 100.0, 192.0, 184.0, 46.0, 36.0]


@pytest.mark.parametrize("frame_size", [64, None])
def test_the_scripted_player_wins(frame_size):
    env = RealEnv("Pong", frame_size=frame_size)
    player = PongPlayer()
    obs, _ = env.reset(seed=0)
    player.reset(np.random.default_rng(0))
    rewards = []
    while sum(map(abs, rewards)) < 5:
        obs, reward, *_ = env.step(player.act(obs))
        rewards.append(reward)
    assert sum(rewards) >= 3
