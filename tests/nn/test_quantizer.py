import copy

import pytest
import torch

from genie_gym.errors import ConfigError
from genie_gym.nn.quantizer import QuantizerConfig, VectorQuantizer, whiten


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def quantizer(seed=0, **changes):
    config = QuantizerConfig(**{"num_codes": 8, "code_dim": 4, **changes})
    return VectorQuantizer(config, generator=seeded(seed))


def clusters(num_clusters, num_vectors, code_dim, *, spread, seed):
    """Return vectors around centres at least several spreads apart, and the centres."""
    centres = 10 * torch.eye(num_clusters, code_dim)
    which = torch.arange(num_vectors) % num_clusters
    noise = torch.randn(num_vectors, code_dim, generator=seeded(seed))
    return centres[which] + spread * noise, centres


def test_a_code_is_its_own_nearest_code():
    module = quantizer(num_codes=64).eval()
    assert torch.equal(module.nearest(module.codebook), torch.arange(64))
    quantized = module(module.codebook.view(8, 8, 4))
    assert torch.equal(quantized.codes, torch.arange(64).view(8, 8))
    assert torch.equal(module.embed(quantized.codes), module.codebook.view(8, 8, 4))
    assert torch.allclose(quantized.vectors, module.codebook.view(8, 8, 4), atol=1e-6)
    assert quantized.loss == 0
    assert quantized.perplexity.item() == pytest.approx(64, rel=1e-4)


def test_the_nearest_code_is_the_one_a_search_over_all_finds():
    module = quantizer(num_codes=32).eval()
    vectors = torch.randn(100, 4, generator=seeded(1))
    searched = (vectors[:, None] - module.codebook).norm(dim=-1).argmin(-1)
    assert torch.equal(module(vectors).codes, searched)


def test_gradients_pass_straight_through():
    module = quantizer(commitment_weight=0.0).train()
    vectors = torch.randn(5, 4, generator=seeded()).requires_grad_()
    upstream = torch.randn(5, 4, generator=seeded(1))
    (module(vectors).vectors * upstream).sum().backward()
    assert torch.equal(vectors.grad, upstream)


def test_the_commitment_loss_pulls_vectors_to_their_codes():
    module = quantizer(commitment_weight=0.25).eval()
    vectors = torch.randn(5, 4, generator=seeded(2)).requires_grad_()
    quantized = module(vectors)
    quantized.loss.backward()
    chosen = module.embed(quantized.codes)
    assert torch.allclose(quantized.loss, 0.25 * (vectors - chosen).square().mean())
    assert torch.allclose(vectors.grad, 0.25 * 2 * (vectors.detach() - chosen) / vectors.numel())


def test_dead_codes_are_placed_anew_on_vectors_far_from_every_code():
    module = quantizer(num_codes=2, code_dim=2, dead_usage=0.5, decay=0.9).train()
    # The first code serves the many, so it stays on them; the second is dead.
    module.codebook.copy_(torch.tensor([[0.0, 0.0], [100.0, 100.0]]))
    module.usage.copy_(torch.tensor([7.0, 0.0]))
    vectors = torch.zeros(8, 2)
    vectors[3] = torch.tensor([3.0, 4.0])
    # The first code moves by 0.1 * 5 / 7.1 towards the far vector: a squared distance of 0.005 for
    # each of 7 vectors against 24.3, so another vector wins the draw at 0.15 percent.
    module(vectors)
    assert module.codebook[1].tolist() == [3.0, 4.0]
    assert module.usage[1] >= module.config.dead_usage
    assert module.eval()(vectors).codes.tolist() == [0, 0, 0, 1, 0, 0, 0, 0]


def test_a_payload_is_averaged_along_with_the_vectors_of_its_code():
    config = QuantizerConfig(num_codes=2, code_dim=2, decay=0.5, dead_usage=1.0)
    module = VectorQuantizer(config, generator=seeded(), payload_dim=1).train()
    vectors = torch.tensor([[0.0, 0.0], [0.0, 0.0], [9.0, 9.0], [9.0, 9.0]])
    payload = torch.tensor([[1.0], [3.0], [5.0], [7.0]])
    for _ in range(60):
        codes = module(vectors, payload).codes
    assert torch.allclose(module.payload[codes][:, 0], torch.tensor([2.0, 2.0, 6.0, 6.0]))
    assert torch.allclose(module.codebook[codes], vectors)


def test_no_code_is_placed_anew_where_every_vector_lies_on_a_code():
    module = quantizer(num_codes=4, code_dim=2, decay=0.5).train()
    vectors = torch.tensor([[1.0, 2.0]]).repeat(16, 1)
    for _ in range(10):
        quantized = module(vectors)
    assert torch.equal(module.eval()(vectors).vectors, vectors)
    assert quantized.perplexity == 1


def test_the_codebook_recovers_well_separated_clusters():
    module = quantizer(num_codes=6, code_dim=6, decay=0.9, dead_usage=1.0).train()
    for step in range(200):
        vectors, centres = clusters(6, 120, 6, spread=0.01, seed=step)
        module(vectors)
    distances = torch.cdist(centres, module.codebook)
    # Every centre has a code of its own, and no two share one.
    assert sorted(distances.argmin(-1).tolist()) == list(range(6))
    # Means of about 20 * 10 vectors of spread 0.01 in 6 dimensions stray by 0.002.
    assert distances.amin(-1).max() < 0.01
    quantized = module.eval()(centres)
    assert (quantized.vectors - centres).square().mean() < 1e-5
    assert quantized.perplexity.item() == pytest.approx(6, rel=1e-4)


def test_the_codebook_follows_clusters_that_move():
    module = quantizer(num_codes=4, code_dim=4, decay=0.8).train()
    for step in range(100):
        vectors, centres = clusters(4, 64, 4, spread=0.01, seed=step)
        shift = 0.02 * step
        module(vectors + shift)
    for step in range(60):
        vectors, centres = clusters(4, 64, 4, spread=0.01, seed=1000 + step)
        module(vectors + shift)
    assert torch.cdist(centres + shift, module.codebook).amin(-1).max() < 0.02


def test_a_batch_that_is_not_finite_leaves_the_codebook_alone():
    module = quantizer().train()
    before = copy.deepcopy(module.state_dict())
    module(torch.full((6, 4), torch.nan))
    for name, x in module.state_dict().items():
        assert torch.equal(x, before[name]), name


def test_evaluation_moves_nothing():
    module = quantizer().eval()
    before = copy.deepcopy(module.state_dict())
    generator_state = module.generator.get_state()
    module(torch.randn(100, 4, generator=seeded()))
    for name, x in module.state_dict().items():
        assert torch.equal(x, before[name]), name
    assert torch.equal(module.generator.get_state(), generator_state)


def test_one_seed_gives_one_codebook():
    def trained(seed):
        module = quantizer(seed, num_codes=16, dead_usage=0.1).train()
        for step in range(20):
            module(torch.randn(50, 4, generator=seeded(step)))
        return module.codebook

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="num_codes must be at least 2, got 1"):
        QuantizerConfig(num_codes=1)
    with pytest.raises(ConfigError, match=r"decay must lie between 0 and 1, got 1\.0"):
        QuantizerConfig(decay=1.0)


def test_whitening_brings_small_things_to_the_size_of_large_ones_but_not_noise():
    spreads = torch.tensor([100.0, 30.0, 5.0, 1e-4])
    basis, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))
    places = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * spreads
    white = whiten(places @ basis.T + 7.0) @ basis
    assert white.mean(0).abs().max() < 1e-3
    first, second, third, noise = white.std(0).tolist()
    assert first == pytest.approx(1, abs=0.05)
    assert second == pytest.approx(1, abs=0.1)
    assert third == pytest.approx(5 / 6, abs=0.1)  # the floor is 1 % of 100
    assert noise < 1e-3


def test_whitening_does_not_depend_on_the_order_of_the_codes():
    codes = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(whiten(codes)[order], whiten(codes[order]), atol=1e-5)
