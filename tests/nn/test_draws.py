import torch

from genie_gym.nn.draws import Streams, uniform

CPU = torch.device("cpu")


def streams(*seeds):
    return Streams(torch.tensor(seeds), torch.zeros(len(seeds), dtype=torch.int64))


def splitmix64(seed, count):
    """Return the first numbers of the published generator, in Python's own integers."""
    numbers, state, limit = [], seed, 1 << 64
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % limit
        bits = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % limit
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % limit
        numbers.append((bits ^ bits >> 31) >> 40)
    return numbers


def test_a_stream_is_the_published_generator():
    assert splitmix64(1234567, 1)[0] == 6457827717110365317 >> 40  # the published first number
    for seed in (0, 1234567, 2**63 - 1):
        drawn = streams(seed).uniform((7,))[0]
        assert (drawn * 2**24).long().tolist() == splitmix64(seed, 7)


def test_streams_draw_what_each_would_draw_alone_and_go_on():
    together = streams(5, 6, 7)
    first, second = uniform((3, 4), 3, together, CPU), uniform((2,), 3, together, CPU)
    assert first.shape == (3, 3, 4)
    for row, seed in enumerate((5, 6, 7)):
        alone = streams(seed).uniform((14,))[0]
        assert torch.equal(first[row].flatten(), alone[:12])
        assert torch.equal(second[row], alone[12:])
    assert together.num_drawn.tolist() == [14, 14, 14]


def test_a_copy_draws_the_same_numbers_and_leaves_the_first_where_it_was():
    first = streams(1, 2)
    first.uniform((3,))
    copy = first.clone()
    assert torch.equal(copy.uniform((5,)), first.clone().uniform((5,)))
    assert first.num_drawn.tolist() == [3, 3]


def test_numbers_lie_evenly_in_the_unit_interval():
    drawn = streams(*range(100)).uniform((1000,))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    # 100,000 numbers: a tenth of them strays by 95 around 10,000; the mean by 0.0009.
    counts = torch.histc(drawn, bins=10, min=0, max=1)
    assert (counts - 10_000).abs().max() < 500
    # Rows of near seeds have nothing in common: correlations stray by 0.032.
    assert (torch.corrcoef(drawn) - torch.eye(100)).abs().max() < 0.2


def test_one_generator_draws_for_the_whole_batch():
    drawn = uniform((3,), 2, torch.Generator().manual_seed(0), CPU)
    assert torch.equal(drawn, torch.rand(2, 3, generator=torch.Generator().manual_seed(0)))
