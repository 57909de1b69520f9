import json
from copy import deepcopy

import numpy as np
import pytest
import torch

from genie_gym.agents.algorithms import make_policy
from genie_gym.agents.config import NetworkConfig
from genie_gym.agents.dreamer_network import TokenNetwork, TokenPolicy
from genie_gym.agents.guided_planning import GuidedFollower, GuidedState, make_guide
from genie_gym.agents.policy import Policy, PolicyCard, save_policy
from genie_gym.cli import main
from genie_gym.envs.planning import WorldFollower, WorldModel
from genie_gym.errors import PolicyError
from genie_gym.models.world import World
from planners import CEM, CEMConfig
from planners.categorical import policy_plans
from planners.scoring import score

NUM_GAMES, NUM_FRAMES = 2, 3


def make_card(algo, tokenizer=None):
    network = NetworkConfig(num_frames=NUM_FRAMES, channels=(2, 3), token_dim=3, feature_dim=8)
    values = {"game": "Pong", "height": 64, "width": 64, "num_actions": 6, "seed": 0}
    values |= {"world": "pong", "world_hash": "0", "tokenizer": tokenizer}
    counts = {"imagined_steps": 1, "real_steps": 2, "check_steps": 3}
    return PolicyCard(algo=algo, network=network, **values, **counts)


@pytest.fixture
def make_untrained(world):
    """Return a function that makes an untrained policy, sure of its actions."""

    def make(algo):
        torch.manual_seed(0)
        if algo == "dreamer":
            tokenizer = world.stack.tokenizer
            card = make_card(algo, world.config.tokenizer)
            actor = TokenNetwork(card.network, tokenizer, 6)
            actor.measure(tokenizer.quantizer.codebook, world.starts.tokens[:, -1])
            torch.nn.init.normal_(actor.layers[-1].weight, std=5)
            return Policy(card, TokenPolicy(tokenizer, actor))
        card = make_card(algo)
        network = make_policy(algo, card.network, (64, 64), 6)
        if algo != "dqn":
            with torch.no_grad():
                network.action_net.weight.mul_(1e5)
        return Policy(card, network)

    return make


@pytest.mark.parametrize("algo", ["ppo", "a2c", "dreamer"])
def test_a_policy_sees_of_real_games_what_it_sees_when_it_plays(algo, make_untrained, world):
    policy = make_untrained(algo)
    follow = GuidedFollower(WorldFollower(world), world, make_guide(policy, world))
    rng = np.random.default_rng(0)
    memory, actions = None, None
    for step in range(6):
        obs = rng.integers(256, size=(NUM_GAMES, 64, 64, 3), dtype=np.uint8)
        is_first = np.array([step == 0, step in (0, 4)])  # the second game begins anew
        state = follow(obs, actions, is_first).snapshot()
        actions, memory = policy.predict(obs, memory, is_first, deterministic=True)
        np.testing.assert_array_equal(state.seen.numpy(), memory[0])


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_proposed_plans_are_what_the_policy_plays_in_the_world(algo, make_untrained, world):
    policy = make_untrained(algo)
    start = world.start(torch.arange(NUM_GAMES))
    obs = world.decode(start).numpy()
    guide = make_guide(policy, world)
    model = GuidedFollower(lambda *_: WorldModel(world, start), world, guide)(
        obs, None, np.ones(NUM_GAMES, np.bool_)
    )
    plans = policy_plans(model, model.snapshot(), 3, 5, torch.Generator().manual_seed(0))

    played, stacks, state, memory = [], [], start, None
    for _ in range(5):
        frames = world.decode(state).numpy()
        actions, memory = policy.predict(frames, memory, deterministic=True)
        stacks.append(torch.from_numpy(memory[0]))
        played.append(torch.from_numpy(actions))
        state, _, _ = world.step(state, played[-1])
    for plan in range(3):
        assert torch.equal(plans[:, plan], torch.stack(played, dim=1))

    # Chances and values along one of these plans are those of the stacks that were played.
    imagined = model.snapshot()
    for stack, actions in zip(stacks, played, strict=True):
        assert torch.equal(imagined.seen, stack)
        with torch.no_grad():
            chances = policy.network.get_distribution(stack).distribution.probs
            values = policy.network.predict_values(stack)[:, 0]
        torch.testing.assert_close(model.policy(imagined), chances)
        torch.testing.assert_close(model.value(imagined), values)
        imagined, _, _ = model.step(imagined, actions)


def test_a_policy_of_tokens_needs_no_pixels(make_untrained, world):
    class BlindWorld(World):
        def decode(self, state):
            raise AssertionError("a planner asked for pixels")

    policy = make_untrained("dreamer")
    state, frames = world.start(torch.arange(NUM_GAMES)), np.zeros((NUM_GAMES, 64, 64, 3), np.uint8)
    world = BlindWorld(world.stack, world.starts, parts=world.parts, card=world.card)
    guide = make_guide(policy, world)
    model = GuidedFollower(lambda *_: WorldModel(world, state), world, guide)(
        frames, None, np.ones(NUM_GAMES, np.bool_)
    )
    actions = torch.tensor([2, 3])
    later, _, _ = model.step(model.snapshot(), actions)
    after, _, _ = world.step(state, actions)
    seen = torch.stack([state.tokens, state.tokens, after.tokens], dim=1)
    assert torch.equal(later.seen, seen)
    assert isinstance(later, GuidedState) and model.value is None
    with torch.no_grad():
        probs = policy.network.actor(seen).softmax(-1)
    torch.testing.assert_close(model.policy(later), 0.99 * probs + 0.01 / 6)


def test_the_critic_scores_the_ends_of_plans(make_untrained, world):
    guide = make_guide(make_untrained("ppo"), world)
    state = world.start(torch.arange(NUM_GAMES))
    model = GuidedFollower(lambda *_: WorldModel(world, state), world, guide)(
        world.decode(state).numpy(), None, np.ones(NUM_GAMES, np.bool_)
    )
    plans = torch.randint(6, (NUM_GAMES, 4, 3), generator=torch.Generator().manual_seed(0))
    rollout = model.rollout(model.snapshot(), plans)
    earned, with_value = score(rollout, 0.9), score(rollout, 0.9, model.value)
    alive = rollout.continuation.prod(-1)
    ends = guide.value(rollout.state.seen).view(NUM_GAMES, 4)
    torch.testing.assert_close(with_value, earned + 0.9**3 * alive * ends)
    config = CEMConfig(horizon=3, num_samples=8, num_iterations=1, num_policy_samples=2)
    plan = CEM(config, generator=torch.Generator().manual_seed(0)).plan(model)
    assert plan.score.isfinite().all()


@pytest.mark.parametrize(
    ("algo", "text"),
    [
        ("dqn", "got one of 'dqn', which gives no chances"),
        ("recurrent_ppo", "got one of 'recurrent_ppo', which remembers more than its last frames"),
    ],
)
def test_a_policy_that_cannot_guide_is_refused(algo, text, make_untrained, world):
    with pytest.raises(PolicyError, match=text):
        make_guide(make_untrained(algo), world)


def test_a_policy_that_reads_other_tokens_is_refused(make_untrained, world):
    policy = make_untrained("dreamer")
    network = deepcopy(policy.network)
    with torch.no_grad():
        network.tokenizer.quantizer.codebook.add_(1)
    with pytest.raises(PolicyError, match=r"tokens of another world .* trained in 'pong'"):
        make_guide(Policy(policy.card, network), world)


@pytest.mark.parametrize(
    ("algo", "planner", "env"),
    [("ppo", "cem", "real"), ("ppo", "gumbel", "world"), ("dreamer", "mppi", "world")],
)
def test_planning_with_a_policy_runs_end_to_end(
    algo, planner, env, make_untrained, pipeline, tmp_path
):
    policy = make_untrained(algo)
    save_policy(tmp_path / "policy", policy.card, policy.network.state_dict())
    flags = ["--horizon=3", "--num-samples=8", "--num-iterations=1", "--device=cpu", "--seed=2"]
    flags += ["--max-decisions=3", "--env", env, "--planner", planner, "--resume"]
    flags += ["--policy", str(tmp_path / "policy"), "--out", str(tmp_path / "plan.json")]
    assert main(["plan", "--world", str(pipeline.bundle), *flags]) == 0
    results = json.loads((tmp_path / "plan.json").read_text())
    assert results["games"][0]["num_decisions"] == 3
    card = json.loads((tmp_path / "policy" / "policy.json").read_text())
    assert results["policy_hash"] == card["weights_hash"]
    if planner != "gumbel":
        assert results["settings"]["planner_config"]["num_policy_samples"] == 2
