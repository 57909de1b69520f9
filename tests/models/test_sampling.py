import pytest
import torch

from genie_gym.models.dynamics import Dynamics, DynamicsConfig
from genie_gym.models.sampling import FrameSampler
from genie_gym.nn.draws import Streams
from genie_gym.nn.masking import draw_codes
from genie_gym.nn.transformer import TransformerConfig

NUM_CODES, ROWS, COLUMNS, NUM_ACTIONS = 24, 2, 4, 4
S = ROWS * COLUMNS
WINDOW = 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def streams(*seeds):
    return Streams(torch.tensor(seeds), torch.zeros(len(seeds), dtype=torch.int64))


def tokens(*shape, seed=0):
    return torch.randint(NUM_CODES, (*shape, S), generator=seeded(seed))


def sampler(num_layers=1, **changes):
    transformer = TransformerConfig(
        num_layers=num_layers, dim=24, num_heads=3, head_dim=8, temporal_window=WINDOW
    )
    torch.manual_seed(0)
    module = Dynamics(
        DynamicsConfig(transformer=transformer, **changes),
        codebook=torch.randn(NUM_CODES, 4, generator=seeded(9)),
        rows=ROWS,
        columns=COLUMNS,
        num_actions=NUM_ACTIONS,
        num_latent_actions=5,
        generator=seeded(),
    )
    # Untrained tables are nearly equal rows; apart, every leak shows.
    with torch.no_grad():
        module.code_offset.normal_(generator=seeded(1))
        module.mask_token.normal_(generator=seeded(2))
    return FrameSampler(module.eval().requires_grad_(False))


def cached(play, past, rows):
    cache = play.dynamics.empty_cache(len(past))
    for t in range(past.shape[1]):
        cache = play.append(past[:, t], rows[:, t], cache)
    return cache


def tensors(cache):
    return [*cache.keys, *cache.values, cache.num_frames]


class Game:
    """Some games a few frames in, and the arguments that sample their next frame."""

    def __init__(self, play, batch_size, num_frames=4):
        self.play = play
        past = tokens(batch_size, num_frames)
        led_by = torch.ones(batch_size, num_frames, dtype=torch.int64)
        self.last = past[:, -1]
        self.actions = 1 + torch.arange(batch_size) % NUM_ACTIONS
        self.before = cached(play, past[:, :-1], led_by[:, :-1])
        self.cache = cached(play, past, led_by)
        self.arguments = self.last, led_by[:, -1], self.actions, self.before

    def sample(self, **options):
        """Return tokens of the next frame."""
        defaults = {"num_steps": 1, "temperature": 1.0, "generator": None}
        return self.play.sample(*self.arguments, **{**defaults, **options})[0]


KINDS = pytest.mark.parametrize(
    "kind",
    [
        {"action_injection": "add"},
        {"action_injection": "prepend"},
        {"action_injection": "add", "group_size": 2},
        {"action_injection": "prepend", "group_size": 2},
    ],
    ids=["add", "prepend", "add-groups", "prepend-groups"],
)


@pytest.mark.parametrize("num_frames", [2, 3, 8, 3 * WINDOW + 1])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@KINDS
def test_both_streams_in_one_pass_equal_the_cache_inside_and_beyond_the_window(
    kind, num_layers, num_frames
):
    play = sampler(num_layers, **kind)
    frames = tokens(4, num_frames)
    past, targets = frames[:, :-1], frames[:, 1:]
    rows = torch.randint(1 + NUM_ACTIONS, frames.shape[:2], generator=seeded(3))
    some = torch.rand(targets.shape, generator=seeded(5)) < 0.5
    for hidden in (torch.ones_like(some), some):
        whole = play.dynamics.two_stream_logits(past, targets, hidden, rows)
        for t in range(whole.shape[1]):
            last, action = past[:, t], rows[:, t + 1]
            cache = cached(play, past[:, : t + 1], rows[:, : t + 1])
            stepped = play.logits(targets[:, t], hidden[:, t], last, action, cache)
            assert (stepped - whole[:, t]).abs().max() < 1e-5


@pytest.mark.parametrize("num_frames", [2, 3, 8, 24])
def test_clips_shorter_and_longer_than_any_trained_on_equal_the_cached_steps(num_frames):
    play = sampler(2)
    frames = tokens(4, num_frames)
    past, targets = frames[:, :-1], frames[:, 1:]
    rows = torch.randint(1 + NUM_ACTIONS, frames.shape[:2], generator=seeded(3))
    hidden = torch.rand(targets.shape, generator=seeded(5)) < 0.5
    whole = play.dynamics.two_stream_logits(past, targets, hidden, rows)
    cache = play.dynamics.empty_cache(4)
    for t in range(num_frames - 1):
        cache = play.append(past[:, t], rows[:, t], cache)
        stepped = play.logits(targets[:, t], hidden[:, t], past[:, t], rows[:, t + 1], cache)
        assert (stepped - whole[:, t]).abs().max() < 1e-5


@KINDS
def test_the_shared_pass_equals_appending_the_last_frame_and_looking_then(kind):
    play = sampler(2, **kind)
    for num_frames in (1, 2, WINDOW, 3 * WINDOW):
        game = Game(play, 3, num_frames)
        hidden = torch.ones(3, S, dtype=torch.bool)
        features, cache = play._look_first(*game.arguments)
        apart = play._look(tokens(3, seed=7), hidden, game.last, game.actions, game.cache)
        assert (features - apart).abs().max() < 1e-5
        for one, other in zip(tensors(cache), tensors(game.cache), strict=True):
            assert (one - other).abs().max() < 1e-5


def test_sampling_leaves_the_cache_alone():
    game = Game(sampler(), 2, num_frames=5)
    kept = [x.clone() for x in tensors(game.before)]
    game.sample(num_steps=3, generator=seeded())
    for before, now in zip(kept, tensors(game.before), strict=True):
        assert torch.equal(before, now)


@pytest.mark.parametrize(("sure_prob", "num_left"), [(1.0, 5), (0.98, 1)])
def test_a_sure_prob_of_1_keeps_to_the_schedule_even_where_a_probability_is_1(sure_prob, num_left):
    doubt = torch.ones(2, S)
    doubt[:, 3], doubt[:, 4] = 0.5, 0.4
    places = torch.arange(S).expand(2, S)
    _, is_open = sampler(sure_prob=sure_prob)._least_sure(places, doubt, limit=5)
    assert is_open.sum(-1).tolist() == [num_left] * 2


def test_the_surest_of_those_in_doubt_is_revealed_so_that_the_others_see_it():
    doubt = torch.ones(2, S)
    doubt[0, [3, 4, 6]] = torch.tensor([0.5, 0.6, 0.2])
    doubt[1, 2] = 0.5  # nobody is left that could see it, and it has seen all
    places = torch.arange(S).expand(2, S)
    asked, is_open = sampler(sure_prob=0.98)._least_sure(places, doubt, limit=5)
    assert [set(row[left].tolist()) for row, left in zip(asked, is_open, strict=True)] == [
        {3, 6},
        set(),
    ]


def test_one_step_without_a_generator_takes_the_likeliest_code_everywhere():
    game = Game(sampler(), 2)
    hidden = torch.ones(2, S, dtype=torch.bool)
    logits = game.play.logits(tokens(2), hidden, game.last, game.actions, game.cache)
    sampled = game.sample()
    assert torch.equal(sampled, logits.argmax(-1))
    assert torch.equal(sampled, game.sample())


def test_each_refinement_step_sees_the_tokens_that_stand():
    # By hand, one token a step: the surest hidden token is fixed, the rest are asked again.
    game = Game(sampler(), 1)
    frame, hidden = torch.zeros(1, S, dtype=torch.int64), torch.ones(1, S, dtype=torch.bool)
    for _ in range(S):
        logits = game.play.logits(frame, hidden, game.last, game.actions, game.cache)
        confidence, codes = logits.softmax(-1).max(-1)
        place = confidence.masked_fill(~hidden, -1).argmax(-1)[0]
        frame[0, place], hidden[0, place] = codes[0, place], False
    assert torch.equal(game.sample(num_steps=S, temperature=0.0), frame)


def test_one_stream_a_row_equals_running_the_rows_alone():
    play = sampler()
    together = Game(play, 5)
    drawn = together.sample(num_steps=3, generator=streams(*range(5)))
    for k in range(5):
        row = slice(k, k + 1)
        last, led_by, actions, cache = together.arguments
        alone, _ = play.sample(
            last[row],
            led_by[row],
            actions[row],
            cache.gather(torch.tensor([k])),
            num_steps=3,
            temperature=1.0,
            generator=streams(k),
        )
        assert torch.equal(drawn[row], alone)


def test_a_generator_gives_the_same_sample_again_and_another_seed_another():
    game = Game(sampler(num_near_codes=1), 5)

    def sample(seed):
        return game.sample(num_steps=2, temperature=5.0, generator=seeded(seed))

    assert torch.equal(sample(0), sample(0))
    assert not torch.equal(sample(0), sample(1))


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num_near_codes", [1, 4])
def test_leaving_out_what_can_only_stay_as_it_was_changes_no_draw(num_near_codes, temperature):
    play = sampler(num_near_codes=num_near_codes)
    logits = 2 * torch.randn(50, S, NUM_CODES, generator=seeded())
    last = tokens(50)
    logits.scatter_add_(-1, last[..., None], 8 * torch.rand(50, S, 1, generator=seeded(1)))
    draws, kept = torch.rand(50, S, generator=seeded(2)), logits.clone()
    expected = draw_codes(logits, draws, temperature, play.dynamics.config.least_odds)
    assert torch.equal(play._draw_codes(logits, last, draws, temperature), expected)
    assert torch.equal(logits, kept)
    assert 0.1 < (expected != last).float().mean() < 0.9


def test_what_training_lays_on_near_codes_is_not_drawn():
    # A network in no doubt says what the smoothed targets are, more or less.
    smoothed = sampler(nearness=0.1, num_near_codes=8)
    probs = torch.zeros(1000, S, NUM_CODES)
    probs[..., 0] = 0.9
    probs[..., :8] += 0.1 / 8 * (0.5 + torch.rand(1000, S, 8, generator=seeded()))
    logits, last = (probs + 1e-9).log(), torch.full((1000, S), 3)
    draws = torch.rand(1000, S, generator=seeded(1))
    assert not smoothed._draw_codes(logits, last, draws, 1.0).any()
    as_said = sampler(num_near_codes=1)._draw_codes(logits, last, draws, 1.0)
    assert (as_said > 0).float().mean() == pytest.approx(0.09, abs=0.01)


@pytest.mark.parametrize(
    ("nearness", "num_near_codes", "least_odds"),
    [(0.0, 8, 0.0), (0.1, 1, 0.0), (0.1, 8, 2 * 0.0125 / 0.9125), (1.0, 4, 0.5)],
)
def test_the_least_odds_are_twice_those_of_a_near_code(nearness, num_near_codes, least_odds):
    config = DynamicsConfig(nearness=nearness, num_near_codes=num_near_codes)
    assert config.least_odds == pytest.approx(least_odds)
