import pytest
import torch

from genie_gym.data.batch import Batch
from genie_gym.errors import ConfigError
from genie_gym.models.reward import RewardConfig, class_shares


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def token_batch(batch_size=8, num_frames=7):
    shape = (batch_size, num_frames - 1)
    return Batch(
        tokens=torch.randint(32, (batch_size, num_frames, 12), generator=seeded()),
        actions=torch.randint(6, shape, generator=seeded(1)),
        rewards=torch.randint(-1, 2, shape, generator=seeded(2)).float(),
        terminations=torch.rand(shape, generator=seeded(3)) < 0.3,
    )


def test_every_parameter_learns(build_untrained_world):
    reward = build_untrained_world().stack.reward.train().requires_grad_(True)
    loss, _ = reward(token_batch())
    loss.backward()
    for name, parameter in reward.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_stepping_with_the_cache_equals_whole_clips(untrained_world):
    reward = untrained_world.stack.reward
    batch = token_batch()
    reward_logits, end_logits = reward._logits(batch.tokens, batch.actions)
    led_by = torch.nn.functional.pad(batch.actions, (1, 0), value=-1)
    cache, table = reward.empty_cache(8), reward.code_embeddings()
    for t in range(7):
        last = batch.tokens[:, max(t - 1, 0)]
        prediction, cache = reward.step(batch.tokens[:, t], last, led_by[:, t], cache, table)
        if t > 0:
            expected = reward_logits[:, t - 1].softmax(-1)
            assert (prediction.reward_probs - expected).abs().max() < 1e-5
            expected = end_logits[:, t - 1].softmax(-1)[:, 1]
            assert (prediction.terminated_prob - expected).abs().max() < 1e-5


def test_rewards_go_to_the_nearest_class(untrained_world):
    rewards = torch.tensor([-21.0, -0.6, -0.4, 0.0, 0.4, 0.6, 200.0])
    assert untrained_world.stack.reward.nearest_class(rewards).tolist() == [0, 0, 1, 1, 1, 2, 2]


def test_the_correction_turns_balanced_odds_into_those_of_the_recording(build_untrained_world):
    # A model that learned nothing from the frames believes in the shares it was shown.
    reward = build_untrained_world().stack.reward
    shown, shown_ends = torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.5, 0.5])
    real, real_ends = torch.tensor([0.01, 0.98, 0.01]), torch.tensor([0.999, 0.001])
    reward.to_reward.weight.zero_()
    reward.to_reward.bias.copy_(shown.log())
    reward.to_end.weight.zero_()
    reward.to_end.bias.copy_(shown_ends.log())
    reward.correct_for(trained=(shown, shown_ends), recorded=(real, real_ends))
    tokens, actions = torch.zeros(2, 12, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    table = reward.code_embeddings()
    prediction, _ = reward.step(tokens, tokens, actions, reward.empty_cache(2), table)
    assert torch.allclose(prediction.reward_probs, real.expand(2, 3), atol=1e-6)
    assert torch.allclose(prediction.terminated_prob, torch.tensor([0.001, 0.001]), atol=1e-6)


def test_a_class_that_never_occurs_stays_improbable_and_finite(build_untrained_world):
    reward = build_untrained_world().stack.reward
    shares = (torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 0.0]))
    even = (torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.5, 0.5]))
    reward.correct_for(trained=even, recorded=shares)
    tokens, actions = torch.zeros(1, 12, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    table = reward.code_embeddings()
    prediction, _ = reward.step(tokens, tokens, actions, reward.empty_cache(1), table)
    assert torch.isfinite(prediction.reward_probs).all()
    assert prediction.reward_probs[0, [0, 2]].max() < 1e-3
    assert prediction.terminated_prob[0] < 1e-3


def test_class_shares_are_those_counted():
    assert class_shares(torch.tensor([[0, 2], [2, 2]]), 4).tolist() == [0.25, 0, 0.75, 0]
    assert class_shares(torch.tensor([True, False]), 2).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"reward_classes": (1.0,)}, r"must be two or more rising numbers, got \[1\.0\]"),
        ({"reward_classes": (1.0, 0.0)}, r"must be two or more rising numbers"),
        ({"event_share": 1.0}, r"reward\.event_share must lie in \[0, 1\), got 1\.0"),
    ],
)
def test_settings_out_of_range_are_refused(change, text):
    with pytest.raises(ConfigError, match=text):
        RewardConfig(**change)
