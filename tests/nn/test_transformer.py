import pytest
import torch

from genie_gym.errors import ConfigError
from genie_gym.nn.attention import TemporalCache
from genie_gym.nn.transformer import SpatialPositions, STTransformer, TransformerConfig


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def transformer(**changes):
    shape = {"num_layers": 2, "dim": 20, "num_heads": 3, "head_dim": 8, "temporal_window": 4}
    torch.manual_seed(0)
    return STTransformer(TransformerConfig(**{**shape, **changes})).requires_grad_(False)


def clip(num_frames, batch_size=2):
    return torch.randn(batch_size, num_frames, 5, 20, generator=seeded())


def run_by_steps(model, x):
    cache = model.empty_cache(x.shape[0], x.shape[2])
    out = [x[:, :0]]
    for t in range(x.shape[1]):
        features, cache = model.step(x[:, t : t + 1], cache)
        out.append(features)
    return torch.cat(out, dim=1), cache


def tensors(cache):
    return [*cache.keys, *cache.values, cache.num_frames]


def moved_frames(model, num_frames, edited):
    """Return which frames of the output an edit of one input frame moves."""
    x = clip(num_frames)
    before = model(x)
    x[:, edited] += 1
    return (before != model(x)).flatten(2).any(-1).any(0).tolist()


@pytest.mark.parametrize("window", [1, 2, 4, 9])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_an_edited_frame_moves_no_earlier_output(num_layers, window):
    model = transformer(num_layers=num_layers, temporal_window=window)
    assert moved_frames(model, 8, edited=5)[:5] == [False] * 5


@pytest.mark.parametrize("window", [1, 2, 3, 4])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_a_frame_reaches_exactly_as_far_as_the_windows_of_all_layers(num_layers, window):
    # One layer carries a frame over window - 1 frames, and every further layer as far again.
    model = transformer(num_layers=num_layers, temporal_window=window)
    last = 1 + num_layers * (window - 1)
    assert moved_frames(model, 12, edited=1) == [1 <= t <= last for t in range(12)]


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_stepping_with_the_cache_equals_whole_clips_inside_and_beyond_the_window(
    num_layers, window
):
    model = transformer(num_layers=num_layers, temporal_window=window)
    x = clip(3 * window + 1)
    stepped, _ = run_by_steps(model, x)
    assert (stepped - model(x)).abs().max() < 1e-5


def test_rows_of_different_ages_share_one_batch():
    model = transformer()
    x = clip(12, batch_size=1)
    ages = [1, 3, 4, 11]
    caches = [run_by_steps(model, x[:, :age])[1] for age in ages]
    keys, values = (
        tuple(torch.cat(layers) for layers in zip(*of_rows, strict=True))
        for of_rows in ([cache.keys for cache in caches], [cache.values for cache in caches])
    )
    joined = TemporalCache(keys, values, torch.cat([cache.num_frames for cache in caches]))
    newest = torch.cat([x[:, age] for age in ages])
    features, after = model.step(newest[:, None], joined)
    features = features[:, 0]
    expected = torch.cat([model(x[:, : age + 1])[:, -1] for age in ages])
    assert (features - expected).abs().max() < 1e-5
    assert after.num_frames.tolist() == [age + 1 for age in ages]


def test_the_cache_does_not_grow_and_a_step_leaves_the_given_one_alone():
    model = transformer(num_layers=2, temporal_window=4)
    cache = model.empty_cache(batch_size=2, num_tokens=5)
    assert [keys.shape for keys in cache.keys] == [(2, 5, 3, 3, 8)] * 2
    x = clip(12)
    for t in range(12):
        kept = [x.clone() for x in tensors(cache)]
        _, after = model.step(x[:, t : t + 1], cache)
        for x_before, x_now in zip(kept, tensors(cache), strict=True):
            assert torch.equal(x_before, x_now)
        assert [x.shape for x in tensors(after)] == [x.shape for x in tensors(cache)]
        assert after.num_frames.tolist() == [t + 1, t + 1]
        cache = after


def test_a_step_that_is_not_kept_returns_the_same_cache():
    model = transformer()
    x = clip(3)
    _, cache = run_by_steps(model, x[:, :2])
    looked, same = model.step(x[:, 2:], cache, num_kept=0)
    stepped, _ = model.step(x[:, 2:], cache)
    assert same is cache
    assert torch.equal(looked, stepped)


@pytest.mark.parametrize("num_frames", [0, 1, 3, 9])
def test_a_kept_frame_and_a_look_beyond_it_share_a_step(num_frames):
    model = transformer()
    x = clip(num_frames + 2)
    _, before = run_by_steps(model, x[:, :num_frames])
    both, after = model.step(x[:, num_frames:], before)
    stepped, cache = run_by_steps(model, x[:, : num_frames + 1])
    looked, _ = model.step(x[:, num_frames + 1 :], cache, num_kept=0)
    assert (both[:, 0] - stepped[:, -1]).abs().max() < 1e-5
    assert (both[:, 1:] - looked).abs().max() < 1e-5
    for one, other in zip(tensors(after), tensors(cache), strict=True):
        assert (one - other).abs().max() < 1e-5


def test_positions_may_run_into_the_millions():
    model = transformer()
    x = clip(9)
    shifted = model(x, positions=torch.arange(9) + 1_000_000)
    assert (model(x) - shifted).abs().max() < 1e-4


def test_window_zero_leaves_temporal_attention_out():
    model = transformer(temporal_window=0)
    assert not any("temporal" in name for name, _ in model.named_parameters())
    assert moved_frames(model, 4, edited=1) == [False, True, False, False]
    x = clip(5)
    stepped, cache = run_by_steps(model, x)
    assert (stepped - model(x)).abs().max() < 1e-5
    assert cache.num_frames.tolist() == [5, 5]
    assert cache.keys == cache.values == ()


def test_without_spatial_attention_every_patch_is_treated_alone():
    model = transformer(is_spatial=False)
    assert not any("spatial" in name for name, _ in model.named_parameters())
    x = clip(5)
    before = model(x)
    stepped, _ = run_by_steps(model, x)
    assert (stepped - before).abs().max() < 1e-5
    x[:, :, 3] += 1
    moved = (before != model(x)).any(-1).flatten(0, 1).any(0)
    assert moved.tolist() == [False, False, False, True, False]


def test_gradient_checkpointing_gives_the_same_gradients():
    x = clip(6)
    gradients = []
    for is_checkpointed in (False, True):
        model = transformer(gradient_checkpointing=is_checkpointed).requires_grad_(True)
        model(x).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0, name
        assert torch.equal(gradient, gradients[1][name]), name


def test_spatial_positions_are_a_row_and_a_column_vector_added():
    positions = SpatialPositions(rows=2, columns=3, dim=4)
    grid = positions().view(2, 3, 4)
    for row in range(2):
        for column in range(3):
            expected = positions.row[row, 0] + positions.column[0, column]
            assert torch.equal(grid[row, column], expected)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"head_dim": 7}, r"head_dim must be even \(rotary pairs\), got 7"),
        ({"temporal_window": -1}, "temporal_window must be 0 or more, got -1"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused(change, text):
    with pytest.raises(ConfigError, match=text):
        TransformerConfig(**change)
