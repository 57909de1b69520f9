import copy
import re

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger

import genie_gym
from genie_gym.agents.dreamer import Dreamer, DreamerConfig, lambda_returns
from genie_gym.agents.games import play_imagined
from genie_gym.agents.imagination import Imagination
from genie_gym.agents.policy import load_policy, read_card, save_policy
from genie_gym.agents.run import train_agent
from genie_gym.data.batch import to_float
from genie_gym.envs.slots import WorldEnvConfig
from genie_gym.errors import ConfigError, DivergedError, PolicyError
from genie_gym.models.bundle import load_world, save_bundle

PAID = 2
"""The one action that earns something."""


@pytest.fixture(scope="module")
def generous_bundle(world, tmp_path_factory):
    """Hold the tiny world with a reward head that pays 1 for `PAID`, and nothing else."""
    stack = copy.deepcopy(world.stack)
    reward = stack.reward
    with torch.no_grad():
        # What an action of this size gives to the first feature drowns all else in it.
        reward.embed_action.weight[:, 0] = 0.0
        reward.embed_action.weight[1 + PAID, 0] = 1e4
        reward.to_reward.weight.zero_()
        reward.to_reward.weight.view(3, -1, 32)[2, :, 0] = 10 / reward.grid.num_groups
        reward.to_reward.bias.copy_(torch.tensor([-99.0, 0.0, -40.0]))
        reward.reward_correction.zero_()
        reward.to_end.bias.copy_(torch.tensor([99.0, 0.0]))
    folder = tmp_path_factory.mktemp("generous") / "world"
    card = {"action_meanings": world.card["action_meanings"]}
    save_bundle(folder, stack=stack, starts=world.starts, parts=world.parts, card=card)
    return folder


@pytest.fixture(scope="module")
def trained_dreamer(make_config, tmp_path_factory):
    """Train for three rollouts; return the run folder. Not to be changed."""
    out = tmp_path_factory.mktemp("dreamer") / "run"
    train_agent(make_config("dreamer"), out)
    return out


@pytest.fixture(scope="module")
def imagine(pipeline):
    def make(*, num_games=3, num_frames=2, **options):
        world = str(pipeline.bundle)
        env = WorldEnvConfig(game="Pong", world=world, num_maskgit_steps=1, **options)
        return Imagination(env, num_games=num_games, num_frames=num_frames, seed=0)

    return make


def test_lambda_returns_are_those_worked_out_by_hand():
    rewards = torch.tensor([[1.0, 0.0], [0.0, 2.0], [4.0, 0.0]])
    continuation = torch.tensor([[1.0, 0.5], [1.0, 1.0], [1.0, 1.0]])
    is_over = torch.tensor([[False, False], [False, True], [False, False]])
    next_values = torch.tensor([[2.0, 8.0], [4.0, 6.0], [8.0, 10.0]])
    returns = lambda_returns(
        rewards, continuation, is_over, next_values, discount=0.5, return_lambda=0.75
    )
    # First game, from its end: 4 + .5 * 8 = 8; 0 + .5 * (.25 * 4 + .75 * 8) = 3.5;
    # 1 + .5 * (.25 * 2 + .75 * 3.5) = 2.5625. Second: the cut after its second step gives
    # 2 + .5 * 6 = 5 whatever comes later; 0 + .5 * .5 * (.25 * 8 + .75 * 5) = 1.4375.
    expected = torch.tensor([[2.5625, 1.4375], [3.5, 5.0], [8.0, 5.0]])
    torch.testing.assert_close(returns, expected)


def test_games_remember_their_frames_and_are_replaced_at_the_limit(imagine, world):
    games = imagine(max_episode_steps=2)
    starts = world.starts.tokens[:, -2:]
    assert all((starts == game).flatten(1).all(1).any() for game in games.tokens)
    begun = games.tokens
    first = games.step(torch.tensor([0, 1, 2]))
    assert not first.is_over.any()
    assert torch.equal(first.reached[:, 0], begun[:, 1])
    assert torch.equal(games.tokens, first.reached)
    second = games.step(torch.tensor([0, 1, 2]))
    assert second.is_over.all()
    assert torch.equal(second.reached[:, 0], first.reached[:, 1])
    assert all((starts == game).flatten(1).all(1).any() for game in games.tokens)


def test_a_context_of_few_frames_has_its_first_one_repeated(imagine, world):
    games = imagine(num_frames=7)
    context = world.starts.tokens[:, [0, 0, 0, 0, 1, 2, 3]]
    assert all((context == game).flatten(1).all(1).any() for game in games.tokens)


def test_games_go_on_from_a_saved_state_as_before(imagine):
    games, twin = imagine(max_episode_steps=3), imagine(max_episode_steps=3)
    games.step(torch.tensor([0, 1, 2]))
    twin.set_state(games.get_state())
    for actions in torch.randint(6, (5, 3), generator=torch.Generator().manual_seed(1)):
        for one, other in zip(games.step(actions), twin.step(actions), strict=True):
            assert torch.equal(one, other)


def test_the_action_that_pays_is_found(make_config, generous_bundle, tmp_path):
    env = {"game": "Pong", "world": str(generous_bundle), "num_maskgit_steps": 1}
    changes = {"num_envs": 16, "steps": 768, "learning_rate": 5e-3, "min_learning_rate": 0.0}
    config = make_config("dreamer", env=env, save_every=10_000, **changes)
    world = load_world(generous_bundle)
    state = world.start(torch.zeros(6, dtype=torch.int64))
    _, expected, ends = world.step(state, torch.arange(6))
    assert [round(x, 3) for x in expected.tolist()] == [0, 0, 1, 0, 0, 0] and ends.max() < 1e-3

    policy = genie_gym.load_policy(train_agent(config, tmp_path / "run"))
    games = play_imagined(
        policy, 2, WorldEnvConfig(**env, max_episode_steps=20), seed=0, deterministic=True
    )
    assert games.returns.tolist() == [20, 20]


def test_a_policy_plays_what_the_training_network_chooses(trained_dreamer, make_config, world):
    policy = genie_gym.load_policy(trained_dreamer)
    learner = Dreamer(make_config("dreamer"))
    learner.actor.load_state_dict(policy.network.actor.state_dict())
    frames = np.random.default_rng(0).integers(256, size=(4, 3, 64, 64, 3), dtype=np.uint8)
    tokens = world.stack.tokenizer.encode(to_float(torch.from_numpy(frames).transpose(0, 1)))
    state = None
    for step, obs in enumerate(frames):
        actions, state = policy.predict(obs, state, deterministic=True)
        seen = tokens[:, [max(step - 1, 0), step]]
        np.testing.assert_array_equal(state[0], seen)
        np.testing.assert_array_equal(actions, learner.actor(seen).argmax(-1))
    single, _ = policy.predict(frames[0, 0], deterministic=True)
    assert single.shape == ()


def test_a_game_that_begins_forgets_the_one_before(trained_dreamer):
    policy = genie_gym.load_policy(trained_dreamer)
    frames = np.random.default_rng(0).integers(256, size=(3, 2, 64, 64, 3), dtype=np.uint8)
    state = None
    for obs, starts in zip(frames, ([True, True], [False, False], [False, True]), strict=True):
        _, state = policy.predict(obs, state, np.array(starts))
    _, fresh = policy.predict(frames[2])
    np.testing.assert_array_equal(state[0][1], fresh[0][1])
    assert (state[0][0] != fresh[0][0]).any()


def test_draws_of_a_policy_are_its_own(trained_dreamer):
    policy = genie_gym.load_policy(trained_dreamer)
    frames = np.random.default_rng(0).integers(256, size=(30, 64, 64, 3), dtype=np.uint8)

    def play():
        policy.generator.manual_seed(0)
        return policy.predict(frames)[0].tolist()

    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert play() == play()
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(play())) > 1


def test_a_policy_needs_no_world_to_play(trained_dreamer, world):
    card = read_card(trained_dreamer / "policy")
    assert card.tokenizer == world.config.tokenizer
    policy = genie_gym.load_policy(trained_dreamer)
    for name, tensor in world.stack.tokenizer.state_dict().items():
        assert torch.equal(tensor, policy.network.tokenizer.state_dict()[name]), name


def test_a_card_of_tokens_without_a_tokenizer_is_refused(trained_dreamer, tmp_path):
    text = (trained_dreamer / "policy" / "policy.json").read_text()
    (tmp_path / "policy.json").write_text(text.replace('"algo": "dreamer"', '"algo": "ppo"'))
    with pytest.raises(PolicyError, match="tokenizer must be given for algo 'dreamer'"):
        read_card(tmp_path)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(make_config):
    learner = Dreamer(make_config("dreamer"))
    with torch.no_grad():
        learner.critic.layers[-1].bias.fill_(torch.inf)
    before = copy.deepcopy(learner.actor.state_dict())
    with pytest.raises(DivergedError, match=r"after 0 imagined steps\. Take a lower learning_rate"):
        learner.learn(32, Logger(None, []), on_rollout=lambda: None, on_steps=lambda _: None)
    for name, tensor in learner.actor.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"horizon": 0}, "algo_options.horizon must be at least 1, got 0"),
        ({"num_minibatches": 0}, "algo_options.num_minibatches must be at least 1, got 0"),
        ({"discount": 1.5}, "algo_options.discount must lie in [0, 1], got 1.5"),
        ({"return_lambda": -0.1}, "algo_options.return_lambda must lie in [0, 1], got -0.1"),
        ({"entropy_scale": -1.0}, "algo_options.entropy_scale must be 0 or more, got -1.0"),
    ],
)
def test_options_out_of_range_are_refused(options, text):
    with pytest.raises(ConfigError, match=re.escape(text)):
        DreamerConfig(**options)


def test_an_unknown_option_is_named(make_config):
    with pytest.raises(ConfigError, match=r"unknown key 'horizn'\. Did you mean 'horizon'\?"):
        Dreamer(make_config("dreamer", algo_options={"horizn": 3}))


def test_a_run_begins_with_a_former_actor_of_the_same_tokens(
    trained_dreamer, make_config, tmp_path
):
    still = {"learning_rate": 1e-30, "min_learning_rate": 0.0, "steps": 32}
    train_agent(make_config("dreamer", init_from=str(trained_dreamer), **still), tmp_path / "on")
    actors = [
        load_policy(run).network.actor.state_dict() for run in (trained_dreamer, tmp_path / "on")
    ]
    torch.testing.assert_close(*actors, rtol=0, atol=0)

    policy = load_policy(trained_dreamer)
    policy.network.actor.codebook += 1
    save_policy(tmp_path / "other", policy.card, policy.network.state_dict())
    with pytest.raises(
        PolicyError, match="reads the tokens of another tokenizer than this world's"
    ):
        train_agent(make_config("dreamer", init_from=str(tmp_path / "other")), tmp_path / "no")
