import jaxtyping
import pytest
import torch

from genie_gym.errors import InvalidActionError, WorldError
from genie_gym.models.stack import STAGES
from genie_gym.models.state import Starts, WorldState
from genie_gym.models.world import World
from genie_gym.nn.draws import Streams

HEIGHT, WIDTH, S = 20, 28, 12


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def streams(*seeds):
    return Streams(torch.tensor(seeds), torch.zeros(len(seeds), dtype=torch.int64))


def clip(batch_size, num_frames):
    shape = (batch_size, num_frames, HEIGHT, WIDTH, 3)
    frames = torch.randint(256, shape, generator=seeded()).to(torch.uint8)
    return frames, torch.randint(6, (batch_size, num_frames - 1), generator=seeded(1))


def leaves(state):
    caches = (state.dynamics, state.reward, state.decoder, *state.encoder)
    layers = [x for cache in caches for x in (*cache.keys, *cache.values)]
    return [state.tokens, state.led_by, *(cache.num_frames for cache in caches), *layers]


def assert_same(state, other, tolerance=0.0):
    for x, y in zip(leaves(state), leaves(other), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=tolerance)


def actions(*values):
    return torch.tensor(values)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 9])
def test_clips_shorter_and_longer_than_the_window_can_be_encoded_stepped_and_decoded(
    untrained_world, num_frames
):
    state = untrained_world.encode(*clip(2, num_frames))
    assert state.tokens.shape == (2, S)
    assert state.tokens.dtype == torch.int64
    assert state.dynamics.num_frames.tolist() == [num_frames - 1] * 2
    assert state.decoder.num_frames.tolist() == [num_frames - 1] * 2

    state, reward, terminated_prob = untrained_world.step(state, actions(0, 5), seeded())
    for x in (reward, terminated_prob):
        assert x.shape == (2,)
        assert x.dtype == torch.float32
    assert (terminated_prob >= 0).all()
    assert (terminated_prob <= 1).all()
    assert (reward.abs() <= 1).all()

    frames = untrained_world.decode(state)
    assert frames.shape == (2, HEIGHT, WIDTH, 3)
    assert frames.dtype == torch.uint8


def test_a_start_is_the_bundled_context(untrained_world):
    state = untrained_world.start(actions(6, 0))
    assert torch.equal(state.tokens, untrained_world.starts.tokens[[6, 0], -1])
    assert state.reward.num_frames.tolist() == [4, 4]


def test_minus_one_draws_a_start_from_the_generator(untrained_world):
    indices = torch.full((50,), -1)
    drawn = untrained_world.start(indices, seeded())
    assert_same(drawn, untrained_world.start(indices, seeded()))
    assert len(drawn.tokens.unique(dim=0)) == 7
    mixed = untrained_world.start(actions(3, -1), seeded())
    assert torch.equal(mixed.tokens[0], untrained_world.starts.tokens[3, -1])


@pytest.mark.parametrize("index", [7, -2])
def test_a_start_outside_the_bundled_ones_is_refused(untrained_world, index):
    with pytest.raises(WorldError, match=rf"start index must lie in \[0, 7\) .* got {index}"):
        untrained_world.start(actions(0, index))


def test_drawing_a_start_needs_a_generator(untrained_world):
    with pytest.raises(WorldError, match="start index -1 draws a context and needs a generator"):
        untrained_world.start(actions(-1))


def test_decoding_follows_the_clip_decoded_at_once(untrained_world):
    frames, taken = clip(2, 8)
    tokenizer = untrained_world.stack.tokenizer
    whole = tokenizer.decode(tokenizer.encode(frames.float() / 255))
    for num_frames in range(1, 9):
        state = untrained_world.encode(frames[:, :num_frames], taken[:, : num_frames - 1])
        decoded = untrained_world.decode(state).int()
        # Pixels may round differently by one level.
        assert (decoded - (whole[:, num_frames - 1] * 255).round().int()).abs().max() <= 1


def test_stepping_on_equals_encoding_the_longer_history(untrained_world):
    """A stepped state is the one that its own tokens and actions give, beyond every window."""
    world = untrained_world
    state = world.start(actions(0, 1))
    tokens, taken = [world.starts.tokens[:2]], [world.starts.actions[:2]]
    for step in range(6):
        action = torch.randint(6, (2,), generator=seeded(step))
        state, _, _ = world.step(state, action, seeded(step))
        tokens.append(state.tokens[:, None])
        taken.append(action[:, None])
    longer = Starts(torch.cat(tokens, 1), torch.cat(taken, 1))
    replayed = World(world.stack, longer, parts=world.parts, card={}).start(actions(0, 1))
    assert_same(state, replayed, tolerance=1e-5)  # frames share a pass in steps alone


def test_a_real_frame_observed_leads_where_encoding_the_longer_clip_does(untrained_world):
    """Longer than every window; the second game begins anew after five frames."""
    world, (frames, taken) = untrained_world, clip(2, 9)
    state, begun = world.encode(frames[:, :1], taken[:, :0]), 0
    for t in range(1, 9):
        state = world.observe(state, taken[:, t - 1], frames[:, t])
        if t == 5:
            begun = t
            anew = world.encode(frames[:, t : t + 1], taken[:, :0])
            state = state.where(torch.tensor([False, True]), anew)
        for row, first in ((0, 0), (1, begun)):
            one = slice(row, row + 1)
            encoded = world.encode(frames[one, first : t + 1], taken[one, first:t])
            found = state.gather(actions(row))
            assert torch.equal(found.tokens, encoded.tokens)
            assert_same(found, encoded, tolerance=1e-5)
            assert_same_outlook(world, found, encoded)


def assert_same_outlook(world, state, other):
    hidden = torch.ones_like(state.tokens, dtype=torch.bool)
    logits, imagined = [], []
    for at in (state, other):
        dynamics = world.sampler.append(at.tokens, at.led_by, at.dynamics)
        logits.append(world.sampler.logits(at.tokens, hidden, at.tokens, actions(2), dynamics))
        imagined.append(world.imagine(at, actions(2)))
    torch.testing.assert_close(*logits, rtol=0, atol=1e-5)
    assert_same(*(after.state for after in imagined), tolerance=1e-5)
    torch.testing.assert_close(*(x.prediction.reward_probs for x in imagined), rtol=0, atol=1e-5)


def test_encoding_gives_the_tokens_of_the_whole_clip(untrained_world):
    frames, taken = clip(3, 6)
    whole = untrained_world.stack.tokenizer.encode(frames.float() / 255)
    assert torch.equal(untrained_world.encode(frames, taken).tokens, whole[:, -1])


def test_frames_are_observed_after_bundled_starts_and_latent_actions_too(untrained_world):
    frames, _ = clip(2, 2)
    state = untrained_world.start(actions(0, 1))
    after = untrained_world.observe(state, actions(4, 0), frames[:, 0], "latent")
    # The tokenizer has seen no frame of the start, and the dynamics all of them.
    first = untrained_world.encode(frames[:, :1], torch.zeros(2, 0, dtype=torch.int64))
    assert torch.equal(after.tokens, first.tokens)
    assert after.dynamics.num_frames.tolist() == [4, 4]
    assert after.led_by.tolist() == [11, 7]


def test_frames_that_do_not_fit_the_games_are_refused(untrained_world):
    frames, _ = clip(3, 1)
    state = untrained_world.start(actions(0, 1))
    with pytest.raises(WorldError, match="2 games show 2 frames, got 3"):
        untrained_world.observe(state, actions(0, 1, 2), frames[:, 0])
    with pytest.raises(InvalidActionError, match=r"in \[0, 6\), got 6"):
        untrained_world.observe(state, actions(0, 6), frames[:2, 0])
    text = r"frames must be \(B, 20, 28, 3\), got \(2, 20, 20, 3\)\. Resize them"
    with pytest.raises(WorldError, match=text):
        untrained_world.observe(state, actions(0, 1), frames[:2, 0, :, :20])


def test_a_step_leaves_the_given_state_unchanged(untrained_world):
    state = untrained_world.encode(*clip(2, 5))
    kept = state.clone()
    untrained_world.step(state, actions(1, 2), seeded())
    untrained_world.decode(state)
    assert_same(state, kept)


def test_clones_share_no_memory(untrained_world):
    state = untrained_world.encode(*clip(2, 5))
    for x, y in zip(leaves(state), leaves(state.clone()), strict=True):
        assert torch.equal(x, y)
        assert x.data_ptr() != y.data_ptr()


def test_expand_and_gather_move_whole_rows(untrained_world):
    state = untrained_world.encode(*clip(3, 4))
    expanded = state.expand(2)
    assert isinstance(expanded, WorldState)
    assert_same(expanded, state.gather(actions(0, 0, 1, 1, 2, 2)))
    assert_same(expanded.gather(actions(1, 3, 5)), state)
    assert_same(state.gather(actions(2, 0)).gather(actions(1, 0)), state.gather(actions(0, 2)))


def test_where_takes_marked_rows_from_the_other_state(untrained_world):
    state = untrained_world.start(actions(0, 1, 2))
    other = untrained_world.encode(*clip(3, 2))
    mixed = state.where(torch.tensor([False, True, False]), other)
    assert_same(mixed.gather(actions(0, 2)), state.gather(actions(0, 2)))
    assert_same(mixed.gather(actions(1)), other.gather(actions(1)))


def test_without_a_generator_a_step_is_deterministic(untrained_world):
    state = untrained_world.start(actions(0, 1))
    first, second = (untrained_world.step(state, actions(1, 2)) for _ in range(2))
    assert_same(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(first[2], second[2])


def test_temperature_zero_needs_no_chance(untrained_world):
    state = untrained_world.start(actions(0, 1))
    greedy, _, _ = untrained_world.step(state, actions(1, 2))
    cold, _, _ = untrained_world.step(state, actions(1, 2), seeded(), temperature=0.0)
    assert torch.equal(greedy.tokens, cold.tokens)


def test_streams_give_every_row_its_own_chance(untrained_world):
    state = untrained_world.start(actions(0, 1, 2, 3))
    taken = actions(0, 1, 2, 3)
    together, reward, _ = untrained_world.step(state, taken, streams(0, 1, 2, 3))
    for k in range(4):
        row = actions(k)
        alone, alone_reward, _ = untrained_world.step(state.gather(row), taken[row], streams(k))
        assert torch.equal(alone.tokens, together.tokens[row])
        assert torch.allclose(alone_reward, reward[row], atol=1e-5)


def test_streams_that_are_not_one_a_row_are_refused(untrained_world):
    state = untrained_world.start(actions(0, 1, 2))
    text = "3 games take one generator, or 3 streams; got 1 streams"
    with pytest.raises(WorldError, match=text):
        untrained_world.step(state, actions(0, 0, 0), streams(0))
    with pytest.raises(WorldError, match=text):
        untrained_world.start(actions(-1, -1, -1), streams(0))


def test_a_list_of_generators_is_refused_with_what_to_take(untrained_world):
    state, pair = untrained_world.start(actions(0, 1)), [seeded(0), seeded(1)]
    jaxtyping.config.update("jaxtyping_disable", True)  # in use, nothing else checks the type
    try:
        with pytest.raises(WorldError, match=r"got list: .* take Streams \(genie_gym\.nn\.draws\)"):
            untrained_world.step(state, actions(0, 0), pair)
        with pytest.raises(WorldError, match="got list"):
            untrained_world.start(actions(0, -1), pair)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_more_actions_than_games_are_refused(untrained_world):
    state = untrained_world.start(actions(0, 1))
    with pytest.raises(WorldError, match=r"2 games take 2 actions, got actions of shape \(3,\)"):
        untrained_world.step(state, actions(0, 1, 2))


def test_a_start_without_an_index_is_refused(untrained_world):
    with pytest.raises(WorldError, match="start needs at least one index of a context, got none"):
        untrained_world.start(torch.zeros(0, dtype=torch.int64))


def test_latent_actions_step_the_world_too(untrained_world):
    state = untrained_world.start(actions(0, 1))
    by_code, reward, _ = untrained_world.step(state, actions(0, 4), source="latent")
    assert by_code.tokens.shape == (2, S)
    assert torch.isfinite(reward).all()
    by_real, _, _ = untrained_world.step(state, actions(0, 4))
    # The newest frame and its action enter the cache with the step after.
    by_code, by_real = (untrained_world.step(s, actions(0, 0))[0] for s in (by_code, by_real))
    for layer, other in zip(by_code.dynamics.keys, by_real.dynamics.keys, strict=True):
        assert not torch.equal(layer, other)


def test_latent_actions_can_stand_between_the_frames_of_a_clip(untrained_world):
    frames, _ = clip(2, 4)
    codes = untrained_world.infer_latent_actions(frames)
    assert codes.shape == (2, 3)
    state = untrained_world.encode(frames, codes, source="latent")
    assert state.tokens.shape == (2, S)


@pytest.mark.parametrize(
    ("source", "wrong", "limit"), [("real", 6, 6), ("real", -1, 6), ("latent", 5, 5)]
)
def test_an_action_outside_its_set_is_refused(untrained_world, source, wrong, limit):
    text = rf"index of the {limit} {source} actions, in \[0, {limit}\), got {wrong}"
    state = untrained_world.start(actions(0, 1))
    with pytest.raises(InvalidActionError, match=text):
        untrained_world.step(state, actions(0, wrong), source=source)
    frames, _ = clip(2, 2)
    with pytest.raises(InvalidActionError, match=text):
        untrained_world.encode(frames, torch.tensor([[0], [wrong]]), source=source)


def test_frames_of_another_size_are_refused(untrained_world):
    frames = torch.zeros(1, 2, 28, 20, 3, dtype=torch.uint8)
    text = r"frames must be \(B, T, 20, 28, 3\), got \(1, 2, 28, 20, 3\)\. Resize them"
    with pytest.raises(WorldError, match=text):
        untrained_world.encode(frames, torch.zeros(1, 1, dtype=torch.int64))


def test_a_part_that_is_not_trained_is_asked_for_by_name(build_untrained_world):
    blind = build_untrained_world(parts=("tokenizer", "lam", "dynamics"))
    state = blind.start(actions(0))
    text = r"no trained 'reward' part, which step needs; .*genie-gym train --stage reward"
    with pytest.raises(WorldError, match=text):
        blind.step(state, actions(0))

    nameless = build_untrained_world(parts=("tokenizer", "dynamics", "reward"))
    state = nameless.start(actions(0))
    text = r"no trained 'lam' part, .*genie-gym train --stage lam"
    with pytest.raises(WorldError, match=text):
        nameless.step(state, actions(0), source="latent")
    with pytest.raises(WorldError, match=text):
        nameless.infer_latent_actions(clip(1, 2)[0])


def test_a_world_knows_its_sizes_and_does_not_learn(untrained_world):
    assert untrained_world.num_actions == 6
    assert untrained_world.num_latent_actions == 5
    assert untrained_world.reward_classes.tolist() == [-1, 0, 1]
    assert untrained_world.device == torch.device("cpu")
    assert untrained_world.parts == frozenset(STAGES)
    assert len(untrained_world.starts) == 7
    assert not untrained_world.stack.training
    assert not any(p.requires_grad for p in untrained_world.stack.parameters())
