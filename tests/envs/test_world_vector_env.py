import pickle
import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from genie_gym.envs.world_vector_env import GenieWorldVectorEnv
from genie_gym.errors import ConfigError, InvalidActionError, WorldError

ID = "GenieWorld-Pong-v0"


def make(world, num_envs=8, **options):
    return gym.make_vec(ID, num_envs=num_envs, world=str(world), **options)


def make_singles(world, num_envs=8, autoreset_mode=AutoresetMode.NEXT_STEP, **options):
    return gym.make_vec(
        ID,
        num_envs=num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": autoreset_mode},
        world=str(world),
        **options,
    )


def random_actions(num_steps, num_envs=8, seed=0):
    return np.random.default_rng(seed).integers(6, size=(num_steps, num_envs))


def assert_same_infos(infos, others):
    assert infos.keys() == others.keys()
    for name, value in infos.items():
        if isinstance(value, dict):
            assert_same_infos(value, others[name])
        elif value.dtype == object:
            for one, other in zip(value, others[name], strict=True):
                assert (one is None) == (other is None)
                np.testing.assert_array_equal(one, other)
        else:
            assert value.dtype == others[name].dtype
            np.testing.assert_allclose(value, others[name], rtol=0, atol=1e-5)


def assert_same_step(step, other):
    obs, rewards, terminations, truncations, infos = step
    assert (rewards.dtype, terminations.dtype, truncations.dtype) == (float, bool, bool)
    np.testing.assert_array_equal(obs, other[0])
    np.testing.assert_allclose(rewards, other[1], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(terminations, other[2])
    np.testing.assert_array_equal(truncations, other[3])
    assert_same_infos(infos, other[4])


@pytest.mark.parametrize(
    ("autoreset_mode", "num_envs", "num_steps", "max_episode_steps"),
    [(AutoresetMode.NEXT_STEP, 8, 30, 10), (AutoresetMode.SAME_STEP, 3, 40, 10)],
)
def test_slots_play_what_single_environments_play(
    tiny_bundle, autoreset_mode, num_envs, num_steps, max_episode_steps
):
    options = {"max_episode_steps": max_episode_steps, "num_maskgit_steps": 1}
    options["autoreset_mode"] = autoreset_mode
    envs = make(tiny_bundle, num_envs, **options)
    singles = make_singles(tiny_bundle, num_envs, **options)
    (obs, infos), (other_obs, other_infos) = envs.reset(seed=11), singles.reset(seed=11)
    np.testing.assert_array_equal(obs, other_obs)
    assert_same_infos(infos, other_infos)

    num_terminated = num_truncated = 0
    for actions in random_actions(num_steps, num_envs):
        step = envs.step(actions)
        assert_same_step(step, singles.step(actions))
        num_terminated += step[2].sum()
        num_truncated += step[3].sum()
    assert num_terminated > 0
    assert num_truncated > 0


@pytest.mark.slow
def test_eight_slots_play_what_eight_single_environments_play_in_pong():
    envs, singles = make("pong"), make_singles("pong")
    for either in (envs, singles):
        either.reset(seed=11)
    for actions in random_actions(300):
        assert_same_step(envs.step(actions), singles.step(actions))


def test_a_step_after_an_end_resets_the_slot_and_ignores_its_action(endless_bundle):
    envs = make(endless_bundle, 2, max_episode_steps=2)
    envs.reset(seed=0)
    _, _, _, truncations, _ = [envs.step([0, 0]) for _ in range(2)][-1]
    assert truncations.all()
    obs, rewards, terminations, truncations, infos = envs.step([3, 4])
    assert not (rewards.any() or terminations.any() or truncations.any())
    assert set(infos) == {"start", "_start"}
    single = gym.make(ID, world=str(endless_bundle))
    single.reset(seed=1)
    np.testing.assert_array_equal(obs[1], single.reset()[0])


def test_an_end_in_the_same_step_hands_over_the_last_frame(tiny_bundle):
    next_step = make(tiny_bundle, max_episode_steps=9)
    same_step = make(tiny_bundle, max_episode_steps=9, autoreset_mode="SameStep")
    for envs in (next_step, same_step):
        envs.reset(seed=0)
    is_over = np.zeros(8, bool)
    while not is_over.any():
        obs, rewards, terminations, truncations, _ = next_step.step(np.ones(8, int))
        after, same_rewards, *ends, infos = same_step.step(np.ones(8, int))
        is_over = terminations | truncations
    np.testing.assert_array_equal(np.array(ends), [terminations, truncations])
    np.testing.assert_array_equal(same_rewards, rewards)
    np.testing.assert_array_equal(infos["_final_obs"], is_over)
    np.testing.assert_array_equal(infos["_final_info"], is_over)
    np.testing.assert_array_equal(np.stack(infos["final_obs"][is_over]), obs[is_over])
    assert all(frame is None for frame in infos["final_obs"][~is_over])
    begun, *_ = next_step.step(np.ones(8, int))
    np.testing.assert_array_equal(after[is_over], begun[is_over])


def test_without_autoreset_the_caller_resets_some_slots(endless_bundle):
    envs = make(endless_bundle, 3, max_episode_steps=3, autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=0)
    envs.step([0, 0, 0])
    mask = np.array([False, True, False])
    options = {"reset_mask": mask, "start": [0, 2, 0]}
    before = envs.get_state()
    obs, infos = envs.reset(seed=[None, 40, None], options=options)
    assert set(options) == {"reset_mask", "start"}
    np.testing.assert_array_equal(infos["start"], [0, 2, 0])
    np.testing.assert_array_equal(infos["_start"], mask)
    single = gym.make(ID, world=str(endless_bundle))
    np.testing.assert_array_equal(obs[1], single.reset(seed=40, options={"start": 2})[0])

    played, *_ = envs.step([1, 1, 1])
    np.testing.assert_array_equal(played[1], single.step(1)[0])
    envs.set_state(before)
    unreset, *_ = envs.step([1, 1, 1])
    np.testing.assert_array_equal(unreset[[0, 2]], played[[0, 2]])
    assert (unreset[1] != played[1]).any()

    *_, truncations, _ = envs.step([1, 1, 1])
    assert truncations.all()
    with pytest.raises(ResetNeeded, match=re.escape("slots [0, 1, 2] are over")):
        envs.step([0, 0, 0])


def test_what_other_slots_do_moves_nothing(tiny_bundle):
    actions = random_actions(20)
    others = actions.copy()
    others[:, 1:] = (others[:, 1:] + 1) % 6
    first = []
    for plan in (actions, others):
        envs = make(tiny_bundle, max_episode_steps=9)
        envs.reset(seed=5)
        first.append([envs.step(row)[0][0] for row in plan])
    np.testing.assert_array_equal(*first)


def test_seeds_may_be_a_number_or_a_list(endless_bundle):
    envs = make(endless_bundle, 3)
    by_number, infos = envs.reset(seed=4)
    by_list, other_infos = envs.reset(seed=[4, 5, 6])
    np.testing.assert_array_equal(by_number, by_list)
    np.testing.assert_array_equal(infos["start"], other_infos["start"])
    with pytest.raises(ConfigError, match="one seed per slot, 3, got 2"):
        envs.reset(seed=[1, 2])


def test_a_state_of_all_slots_can_be_gone_back_to(tiny_bundle):
    envs = make(tiny_bundle, 3)
    obs, _ = envs.reset(seed=0)
    state = pickle.loads(pickle.dumps(envs.get_state()))
    first = [envs.step(actions) for actions in random_actions(15, 3)]
    np.testing.assert_array_equal(envs.set_state(state), obs)
    for step, actions in zip(first, random_actions(15, 3), strict=True):
        assert_same_step(step, envs.step(actions))
    with pytest.raises(ConfigError, match="must be of 2 games of 16 tokens, got 3 of 16"):
        make(tiny_bundle, 2).set_state(state)


@pytest.mark.filterwarnings("error")
def test_the_environment_says_how_it_resets(tiny_bundle):
    for mode in AutoresetMode:
        envs = make(tiny_bundle, 2, autoreset_mode=mode)
        assert envs.metadata["autoreset_mode"] is mode
    assert make(tiny_bundle, 2).metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert "autoreset_mode" not in gym.make(ID, world=str(tiny_bundle)).unwrapped.metadata


def test_the_batched_spaces_fit_the_single_ones(tiny_bundle):
    envs, singles = make(tiny_bundle, 3), make_singles(tiny_bundle, 3)
    assert envs.observation_space == singles.observation_space
    assert envs.action_space == singles.action_space
    obs, _ = envs.reset(seed=0)
    assert obs in envs.observation_space


def test_frames_are_drawn_one_a_slot(tiny_bundle):
    envs = make(tiny_bundle, 3, render_mode="rgb_array")
    obs, _ = envs.reset(seed=0)
    frames = envs.render()
    assert isinstance(frames, tuple)
    np.testing.assert_array_equal(np.stack(frames), obs)
    assert make(tiny_bundle, 3).render() is None


def test_vector_wrappers_take_the_environment(tiny_bundle):
    envs = gym.wrappers.vector.RecordEpisodeStatistics(make(tiny_bundle, 2, max_episode_steps=4))
    envs.reset(seed=0)
    lengths = []
    for actions in random_actions(15, 2):
        *_, infos = envs.step(actions)
        lengths += infos["episode"]["l"][infos["_episode"]].tolist() if "episode" in infos else []
    assert lengths
    assert max(lengths) == 4


def test_latent_actions_drive_all_slots(tiny_bundle):
    envs = make(tiny_bundle, 2, action_mode="latent")
    envs.reset(seed=0)
    envs.step(np.array([0, 7]))


def test_slots_share_the_weights_of_single_environments(tiny_bundle):
    envs = make(tiny_bundle, 2)
    assert envs.world is gym.make(ID, world=str(tiny_bundle)).unwrapped.world
    assert pickle.loads(pickle.dumps(envs)).world is envs.world


def test_a_start_context_can_be_named_for_all_or_for_each(tiny_bundle):
    envs = make(tiny_bundle, 2)
    assert envs.reset(options={"start": 3})[1]["start"].tolist() == [3, 3]
    assert envs.reset(options={"start": np.array([4, 1])})[1]["start"].tolist() == [4, 1]


@pytest.mark.parametrize(
    ("actions", "text"),
    [
        ([0, 6], r"an int in 0..5 for Pong, got 6 in slot 1"),
        ([-1, 0], r"got -1 in slot 0"),
        ([0], r"ints of shape (2,), got int64 (1,)"),
        ([0.0, 1.0], r"ints of shape (2,), got float64 (2,)"),
    ],
)
def test_wrong_actions_are_refused(tiny_bundle, actions, text):
    envs = make(tiny_bundle, 2)
    envs.reset(seed=0)
    with pytest.raises(InvalidActionError, match=re.escape(text)):
        envs.step(actions)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"prompt": "x.png"}, ConfigError, "unknown key 'prompt'"),
        ({"start": [0, 1, 2]}, ConfigError, "or 2 of them, got [0, 1, 2]"),
        ({"start": [0, 9]}, WorldError, "must lie in [0, 5), got 9"),
        ({"reset_mask": [1, 0]}, ConfigError, "must be bool (2,) with at least one True"),
        ({"reset_mask": np.zeros(2, bool)}, ConfigError, "at least one True"),
    ],
)
def test_wrong_reset_options_are_refused(tiny_bundle, options, error, text):
    envs = make(tiny_bundle, 2)
    envs.reset(seed=0)
    with pytest.raises(error, match=re.escape(text)):
        envs.reset(options=options)


def test_wrong_construction_is_refused(tiny_bundle):
    with pytest.raises(ConfigError, match="num_envs must be at least 1, got 0"):
        GenieWorldVectorEnv(0, world=str(tiny_bundle))
    with pytest.raises(ConfigError, match=re.escape("['NextStep', 'SameStep', 'Disabled']")):
        GenieWorldVectorEnv(2, world=str(tiny_bundle), autoreset_mode="Never")


def test_all_slots_must_have_begun(tiny_bundle):
    envs = make(tiny_bundle, 2)
    with pytest.raises(ResetNeeded, match="not begun"):
        envs.step([0, 0])
    with pytest.raises(ResetNeeded, match="not begun"):
        envs.reset(options={"reset_mask": np.array([True, False])})
