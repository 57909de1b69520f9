import numpy as np
from stable_baselines3.common.vec_env import VecFrameStack

from genie_gym.agents.observations import GreyFrameStack, begin_stack, grey, push
from genie_gym.envs.sb3_vec_env import GenieWorldSB3VecEnv


def test_grey_is_luminance():
    frames = np.zeros((3, 2, 2, 3), np.uint8)
    frames[1], frames[2, 0, 1] = 255, (255, 0, 0)
    expected = np.zeros((3, 2, 2))
    expected[1], expected[2, 0, 1] = 255, 76  # 0.299 of red
    np.testing.assert_array_equal(grey(frames), expected)


def test_a_stack_begins_with_its_first_frame_and_drops_the_oldest():
    one, two = np.full((1, 2, 2), 1, np.uint8), np.full((1, 2, 2), 2, np.uint8)
    stack = begin_stack(one, 3)
    later = push(stack, two)
    assert stack[0, :, 0, 0].tolist() == [1, 1, 1]
    assert later[0, :, 0, 0].tolist() == [1, 1, 2]


def test_stacks_are_those_of_stock_stacking_in_grey(pipeline):
    options = {"world": str(pipeline.bundle), "max_episode_steps": 5, "num_maskgit_steps": 1}
    ours = GreyFrameStack(GenieWorldSB3VecEnv(2, **options), 3)
    stock = VecFrameStack(GenieWorldSB3VecEnv(2, **options), 3)
    for envs in (ours, stock):
        envs.seed(0)
        envs.reset()
    num_ends = 0
    for step, actions in enumerate(np.random.default_rng(0).integers(6, size=(14, 2))):
        obs, rewards, dones, infos = ours.step(actions)
        frames, *others, stock_infos = stock.step(actions)
        np.testing.assert_array_equal([rewards, dones], others)
        assert ours.observation_space.contains(obs[0])
        age = step % 5 + 1  # frames since the first of the episode
        if age >= 2 and not dones.any():
            stocked = [grey(frames[..., 3 * k : 3 * k + 3]) for k in range(3)]
            np.testing.assert_array_equal(obs, np.stack(stocked, axis=1))
        if dones.all():
            num_ends += 1
            last = stock_infos[1]["terminal_observation"]
            stocked = [grey(last[None, ..., 3 * k : 3 * k + 3])[0] for k in range(3)]
            np.testing.assert_array_equal(infos[1]["terminal_observation"], stocked)
            np.testing.assert_array_equal(obs[:, 0], obs[:, 2])
    assert num_ends == 2
