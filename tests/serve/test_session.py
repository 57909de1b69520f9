import dataclasses

import numpy as np
import pytest
import torch

from genie_gym.envs.replay import play_back
from genie_gym.envs.world_env import GenieWorldEnv
from genie_gym.errors import InvalidActionError
from genie_gym.models.bundle import load_world
from genie_gym.serve.problems import ProblemError
from genie_gym.serve.session import begin
from genie_gym.serve.steps import unpack
from genie_gym.serve.worker import Batch
from genie_gym.serve.worlds import load_worlds

ACTIONS = [2, 3, 0, 5, 1, 4, 2, 2]


@pytest.fixture(scope="module")
def world(make_config):
    [served] = load_worlds(make_config(), None).values()
    return served


def game(world, seed=3, start=1, prompt=None, max_rewind=20):
    return begin("id", world, seed=seed, start=start, prompt=prompt, max_rewind=max_rewind)


def play(session, actions):
    return [Batch().step([session], np.array([action]))[0] for action in actions]


def frames(session):
    return np.stack([unpack(step.picture, session.shape) for step in session.steps])


def tensors(state):
    if isinstance(state, torch.Tensor):
        return [state]
    if dataclasses.is_dataclass(state):
        state = [getattr(state, field.name) for field in dataclasses.fields(state)]
    return [tensor for part in state for tensor in tensors(part)]


def test_a_session_is_the_game_of_an_environment_with_its_seed_and_start(world):
    session = game(world)
    env = GenieWorldEnv("Pong", world=world.env.world)
    obs, _ = env.reset(seed=3, options={"start": 1})
    expected, rewards = [obs], []
    for action in ACTIONS:
        obs, reward, *_ = env.step(action)
        expected.append(obs)
        rewards.append(reward)
    steps = play(session, ACTIONS)
    np.testing.assert_array_equal(frames(session), expected)
    assert [step.reward for step in steps] == rewards
    assert session.steps[-1].score == sum(rewards)


def test_a_start_that_is_not_named_is_drawn_by_the_seed(world):
    starts = [game(world, seed=seed, start=None).start for seed in range(8)]
    assert starts == [game(world, seed=seed, start=None).start for seed in range(8)]
    assert len(set(starts)) > 1


def test_players_beside_a_game_do_not_move_it(world):
    alone, crowded = game(world), game(world)
    others = [game(world, seed=seed, start=seed % 5) for seed in range(4)]
    play(alone, ACTIONS)
    batch = Batch()
    for step, action in enumerate(ACTIONS):
        # Others come and go; twice in a row it is the same group.
        group = [*others[: step // 2], crowded]
        actions = np.full(len(group), step % 6)
        actions[group.index(crowded)] = action
        batch.step(group, actions)
    torch.testing.assert_close(
        tensors(crowded.state.world), tensors(alone.state.world), rtol=1e-4, atol=1e-5
    )
    assert torch.equal(crowded.state.world.tokens, alone.state.world.tokens)


def test_a_game_that_stays_behind_does_not_keep_the_memory_of_others(world):
    games = [game(world, seed=seed) for seed in range(3)]
    batch = Batch()
    batch.step(games, np.zeros(3, np.int64))
    states = [one.state for one in games]
    bytes_of_all = states[0].world.tokens.untyped_storage().nbytes()
    batch.step(games[:2], np.zeros(2, np.int64))
    assert games[2].state is not states[2]
    for mine, theirs in zip(tensors(games[2].state.world), tensors(states[2].world), strict=True):
        assert torch.equal(mine, theirs)
    assert games[2].state.world.tokens.untyped_storage().nbytes() == bytes_of_all / 3


@pytest.mark.parametrize("max_rewind", [20, 8, 5])
def test_a_rewound_state_is_the_one_that_was(world, max_rewind):
    session = game(world, max_rewind=max_rewind)
    before = {0: session.state}
    for number, action in enumerate(ACTIONS, start=1):
        play(session, [action])
        before[number] = session.state
    for num_steps in (0, 1, 3):
        newest = session.rewind(num_steps)
        assert newest is session.steps[-1]
        expected = before[newest.index]
        for mine, theirs in zip(tensors(session.state.world), tensors(expected.world), strict=True):
            assert torch.equal(mine, theirs)
        assert session.state.num_steps == expected.num_steps == newest.index
    assert session.steps[-1].index == len(ACTIONS) - 4


def test_the_same_actions_after_a_rewind_give_the_same_frames(world):
    session = game(world)
    play(session, ACTIONS)
    first = frames(session)
    session.rewind(5)
    play(session, ACTIONS[-5:])
    np.testing.assert_array_equal(frames(session), first)


def test_no_more_steps_are_taken_back_than_are_remembered(world):
    session = game(world, max_rewind=3)
    play(session, ACTIONS)
    with pytest.raises(ProblemError, match="3 steps can be taken back now, got 4"):
        session.rewind(4)
    assert session.steps[-1].index == len(ACTIONS)
    session.rewind(3)
    with pytest.raises(ProblemError, match="0 steps can be taken back now, got 1"):
        session.rewind(1)


def test_a_saved_replay_plays_back_to_the_same_frames(world):
    session = game(world, start=None)
    play(session, ACTIONS)
    session.rewind(2)
    play(session, [0])
    np.testing.assert_array_equal(play_back(session.replay()), frames(session))


def test_a_game_of_changed_settings_is_no_replay(world):
    session = game(world)
    session.change({"temperature": 0.5})
    play(session, [0])
    assert session.replay().env.temperature == 0.5
    session.change({"temperature": 0.0})
    play(session, [0])
    with pytest.raises(ProblemError, match="one set of settings, but this game was played with se"):
        session.replay()
    session.rewind(1)
    assert session.replay().env.temperature == 0.5


def test_a_game_from_a_picture_is_no_replay(world, clip_of_two):
    session = game(world, start=None, prompt=clip_of_two)
    assert session.start == "image"
    with pytest.raises(ProblemError, match="began from an image"):
        session.replay()


@pytest.fixture
def clip_of_two():
    return np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)


def test_the_real_game_is_played_beside_and_rewound_with_it(world):
    session = game(world, start="real")
    assert session.start == "real"
    play(session, [2] * 12)
    pictures = [step.real.picture for step in session.steps]
    assert len(set(pictures)) > 3
    session.rewind(6)
    assert session.steps[-1].real.picture == pictures[6]
    play(session, [2] * 6)
    assert [step.real.picture for step in session.steps] == pictures


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"player": "policy"}, "has no policy$"),
        ({"player": "planner"}, "has no planner$"),
        ({"show_value": True}, "has no policy with a critic"),
    ],
)
def test_settings_that_lack_what_they_need_are_refused(world, changes, text):
    session = game(world)
    before = session.settings
    with pytest.raises(ProblemError, match=text):
        session.change(changes)
    assert session.settings == before


def test_latent_actions_are_the_codes_and_exclude_the_real_game(world):
    session = game(world)
    session.change({"action_mode": "latent"})
    session.check_action(7)
    with pytest.raises(InvalidActionError, match=r"8 latent actions, in \[0, 8\), got 8"):
        session.check_action(8)
    play(session, [7])
    real = game(world, start="real")
    with pytest.raises(ProblemError, match="real game take real actions alone"):
        real.change({"action_mode": "latent"})


def test_a_world_that_holds_all_codes_for_equally_likely_is_unsure_by_their_bits(endless_bundle):
    world = load_world(endless_bundle)
    dynamics = world.stack.dynamics
    for parameter in (*dynamics.to_embeddings.parameters(), *dynamics.to_copy.parameters()):
        parameter.zero_()
    dynamics.code_bias.zero_()
    state = world.start(torch.tensor([0, 3]))
    unsure = world.uncertainty(state, torch.tensor([1, 2]))
    torch.testing.assert_close(unsure, torch.full((2, 16), 6.0))  # 64 codes
    dynamics.code_bias[5] = 100.0
    assert world.uncertainty(state, torch.tensor([1, 2])).max() < 1e-6
