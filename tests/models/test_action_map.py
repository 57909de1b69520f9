import copy
from dataclasses import replace

import pytest
import torch

from genie_gym.data.batch import Batch
from genie_gym.errors import ConfigError, InvalidActionError, WorldError
from genie_gym.models.action_map import ActionMap, ActionMapConfig
from genie_gym.models.stack import STAGES
from genie_gym.models.world import World


@pytest.fixture
def latent_world(square_world, square_action_map):
    """The square's world, said to have met latent actions alone, with a map to them."""
    stack = copy.deepcopy(square_world.stack)
    stack.action_map = square_action_map
    dynamics = replace(stack.config.dynamics, latent_prob=1.0)
    stack.config = replace(stack.config, dynamics=dynamics)
    return World(stack, square_world.starts, parts=square_world.parts, card={})


def test_few_labels_tell_which_code_stands_for_each_move(square_action_map, square_clips):
    batch = square_clips(500, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(square_action_map.codes(batch.actions), batch.latent_actions)


def test_a_world_of_latent_actions_plays_the_real_ones_through_the_map(latent_world, moving_square):
    places, actions = moving_square.all_transitions()
    starts = places[:, 0] * moving_square.num_columns + places[:, 1]
    state, reward, _ = latent_world.step(latent_world.start(starts), actions)
    places, expected_reward, _ = moving_square.move(places, actions)
    difference = latent_world.decode(state).int() - moving_square.draw(places).int()
    assert difference.abs().max() <= 0.05 * 255
    assert (reward - expected_reward).abs().max() < 0.1


def test_a_world_of_latent_actions_without_a_map_says_what_to_train(latent_world):
    parts = latent_world.parts - {"action_map"}
    world = World(latent_world.stack, latent_world.starts, parts=parts, card={})
    zero = torch.zeros(1, dtype=torch.int64)
    state = world.start(zero)
    with pytest.raises(WorldError, match="no trained 'action_map' part, which a step by real"):
        world.step(state, zero)


@pytest.mark.parametrize("has_map", [True, False])
def test_a_world_of_latent_actions_starts_with_a_map_or_with_its_past_not_known(
    build_untrained_world, has_map
):
    parts = [stage for stage in STAGES if has_map or stage != "action_map"]
    world = build_untrained_world(parts)
    stack = world.stack
    stack.config = replace(stack.config, dynamics=replace(stack.config.dynamics, latent_prob=1.0))
    world = World(stack, world.starts, parts=world.parts, card={})
    state = world.start(torch.tensor([0, 1]))
    codes = (
        stack.action_map.codes(world.starts.actions[:2, -1]) if has_map else torch.full((2,), -1)
    )
    assert torch.equal(state.led_by, stack.dynamics.latent_action_rows(codes))
    state, *_ = world.step(state, torch.tensor([2, 3]), source="latent")
    assert state.led_by.tolist() == [1 + 6 + 2, 1 + 6 + 3]
    with pytest.raises(InvalidActionError, match=r"6 real actions, in \[0, 6\), got 7"):
        world.encode(torch.zeros(1, 2, 20, 28, 3, dtype=torch.uint8), torch.tensor([[7]]))


def test_an_action_that_is_not_known_has_no_code():
    module = ActionMap(ActionMapConfig(), num_actions=2, num_codes=3)
    with torch.no_grad():
        module.effects[1, 2] = 1.0
    assert module.codes(torch.tensor([-1, 0, 1])).tolist() == [-1, 0, 2]


def transitions(*counts):
    """Return a batch of transitions from (action, code, how often)."""
    actions, codes, times = torch.tensor(counts).T
    actions, codes = (x.repeat_interleave(times)[:, None] for x in (actions, codes))
    tokens = torch.zeros(len(actions), 2, 1, dtype=torch.int64)
    return Batch(tokens=tokens, actions=actions, latent_actions=codes)


def test_an_action_stands_for_the_code_whose_odds_it_raises_most():
    # Code 0 is "still". Both actions lag, so it is the likeliest under each of them; code 3 was
    # seen once, under action 1 alone.
    batch = transitions((0, 0, 90), (0, 1, 8), (1, 0, 40), (1, 2, 30), (1, 1, 1), (1, 3, 1))
    module = ActionMap(ActionMapConfig(num_labels=len(batch.actions)), num_actions=2, num_codes=4)
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value, _ = module(batch)
        value.backward()
        return value

    optimizer.step(loss)
    assert (module.code_bias + module.effects).argmax(-1).tolist() == [0, 0]
    assert module.codes(torch.tensor([1])).item() == 2
    # Where the slope of the loss is 0, an effect is the excess of the code over its expected count.
    probs = (module.code_bias + module.effects).softmax(-1)
    counts = torch.tensor([[90.0, 8, 0, 0], [40, 1, 30, 1]])
    excess = counts - counts.sum(1, keepdim=True) * probs
    torch.testing.assert_close(module.effects, excess, atol=0.05, rtol=0.05)


def test_the_accuracy_is_told_beside_that_of_the_commonest_code():
    module = ActionMap(ActionMapConfig(), num_actions=2, num_codes=2)
    with torch.no_grad():
        module.effects[1, 1] = 1.0
    _, metrics = module(transitions((0, 0, 1), (1, 1, 2), (1, 0, 1)))
    assert metrics == {"accuracy": 0.75, "commonest": 0.5}


def test_no_labels_are_refused():
    with pytest.raises(ConfigError, match=r"action_map\.num_labels must be at least 1, got 0"):
        ActionMapConfig(num_labels=0)
