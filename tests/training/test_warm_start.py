from dataclasses import replace

import pytest
import torch

from genie_gym.errors import ConfigError
from genie_gym.models.stack import GenieStack
from genie_gym.models.state import Starts
from genie_gym.models.world import World
from genie_gym.training.run import run_training
from genie_gym.training.warm_start import warm_start

NUM_FRAMES = 3


def build(config, seed, codebook=None):
    torch.manual_seed(seed)
    stack = GenieStack(config.stack, generator=torch.Generator().manual_seed(seed)).eval()
    if codebook is not None:
        stack.tokenizer.quantizer.codebook.copy_(codebook)
        stack.share_codebook()
    return stack.requires_grad_(False)


def world_of(stack, *parts):
    starts = Starts(torch.zeros(1, 2, 16, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int64))
    return World(stack, starts, parts=frozenset(parts), card={})


def all_hidden_logits(stack, tokens):
    """Return the dynamics' logits of the frames after each of these."""
    hidden = torch.ones_like(tokens, dtype=torch.bool)
    actions = torch.ones(len(tokens), NUM_FRAMES + 1, dtype=torch.int64)
    return stack.dynamics.two_stream_logits(tokens, torch.zeros_like(tokens), hidden, actions)


@pytest.fixture(scope="module")
def old_world(config):
    return world_of(build(config, 1), "tokenizer", "dynamics")


@pytest.fixture(scope="module")
def tokens(config):
    shape = (2, NUM_FRAMES, 16)
    num_codes = config.stack.tokenizer.quantizer.num_codes
    return torch.randint(num_codes, shape, generator=torch.Generator().manual_seed(0))


def test_with_the_same_codes_in_another_order_it_foretells_the_same(config, old_world, tokens):
    codes = old_world.stack.tokenizer.quantizer.codebook
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))
    stack = build(config, 2, codes[order])
    warm_start(stack, old_world, "dynamics")
    expected = all_hidden_logits(old_world.stack, order[tokens])[..., order]
    assert (all_hidden_logits(stack, tokens) - expected).abs().max() < 1e-4


def test_what_was_known_of_a_code_goes_to_all_that_are_nearest_to_it(config, old_world):
    codes = old_world.stack.tokenizer.quantizer.codebook
    noise = torch.randn(codes.shape, generator=torch.Generator().manual_seed(0))
    halves = torch.cat([codes, codes + 1e-3 * noise])
    quantizer = replace(config.stack.tokenizer.quantizer, num_codes=len(halves))
    wide = replace(
        config,
        stack=replace(config.stack, tokenizer=replace(config.stack.tokenizer, quantizer=quantizer)),
    )
    stack = build(wide, 2, halves)
    warm_start(stack, old_world, "dynamics")
    old = old_world.stack.dynamics.code_embeddings()
    assert (stack.dynamics.code_embeddings() - torch.cat([old, old])).abs().max() < 0.01
    # A copy is as likely as before, though every other token now has two names.
    shift = stack.dynamics.to_copy.bias - old_world.stack.dynamics.to_copy.bias
    assert shift.item() == pytest.approx(torch.tensor(2.0).log().item())


def test_a_run_begins_with_the_worlds_weights_but_goes_on_with_its_own(
    pipeline, config, world, earlier_stages
):
    run = earlier_stages("begun", "dynamics")
    (run.path / "dynamics").mkdir()  # left by a run that was killed before its first checkpoint
    training = replace(
        config.training,
        dynamics=replace(config.training.dynamics, max_steps=1, learning_rate=1e-12),
    )
    begin = {"stages": ["dynamics"], "resume": True, "device": torch.device("cpu")}
    settings = replace(config, training=training)
    run_training(settings, pipeline.recording, run.path, init_from=world, **begin)
    stack = build(config, 2)
    run.load(stack)
    trained, expected = stack.dynamics.state_dict(), world.stack.dynamics.state_dict()
    for name, weight in trained.items():
        assert torch.allclose(weight, expected[name], atol=1e-6), name

    other = world_of(build(config, 3), "dynamics")
    run_training(settings, pipeline.recording, run.path, init_from=other, **begin)
    run.load(stack)
    assert torch.equal(stack.dynamics.mask_token, trained["mask_token"])


def test_a_reward_model_keeps_the_correction_for_its_own_recording(config):
    world, stack = world_of(build(config, 1), "reward"), build(config, 2)
    for value, model in ((1.0, world.stack.reward), (2.0, stack.reward)):
        model.reward_correction.fill_(value)
        model.end_correction.fill_(value)
    warm_start(stack, world, "reward")
    assert torch.equal(stack.reward.to_reward.weight, world.stack.reward.to_reward.weight)
    assert (stack.reward.reward_correction == 2).all() and (stack.reward.end_correction == 2).all()


def test_a_reward_model_of_other_rewards_is_refused(config):
    reward = replace(config.stack.reward, reward_classes=(-2.0, 0.0, 2.0))
    stack = build(replace(config, stack=replace(config.stack, reward=reward)), 2)
    text = r"reward_classes is \[-2\.0, 0\.0, 2\.0\], but that world tells \[-1\.0, 0\.0, 1\.0\]"
    with pytest.raises(ConfigError, match=text):
        warm_start(stack, world_of(build(config, 1), "reward"), "reward")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("stage", ["dynamics", "reward"])
def test_a_stack_on_a_gpu_begins_from_a_world_on_the_cpu(config, stage):
    world = world_of(build(config, 1), stage)
    stack, expected = build(config, 2).to("cuda"), build(config, 2)
    for one in (stack, expected):
        warm_start(one, world, stage)
    trained = getattr(stack, stage).state_dict()
    for name, weight in getattr(expected, stage).state_dict().items():
        assert torch.equal(trained[name].cpu(), weight), name


def test_a_part_that_the_world_lacks_is_refused(config, old_world):
    text = r"stage 'reward' cannot begin from that world, which has \['dynamics', 'tokenizer'\]"
    with pytest.raises(ConfigError, match=text):
        warm_start(build(config, 2), old_world, "reward")


def test_a_part_of_another_shape_is_refused(config, old_world):
    dynamics = config.stack.dynamics
    wide = replace(dynamics, transformer=replace(dynamics.transformer, dim=48))
    stack = build(replace(config, stack=replace(config.stack, dynamics=wide)), 2)
    with pytest.raises(ConfigError, match=r"stage 'dynamics' cannot begin .* size mismatch"):
        warm_start(stack, old_world, "dynamics")
