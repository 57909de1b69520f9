import pytest
import torch

from genie_gym.models.code_terms import (
    MAX_SHIFT,
    labelled_cross_entropy,
    shifted_view,
    uneven_use,
    unsteadiness,
)


def test_use_is_even_where_each_code_has_its_share_and_uneven_where_one_has_all():
    codebook = 10 * torch.eye(4)
    assert uneven_use(codebook.repeat(3, 1), codebook).item() == pytest.approx(0, abs=1e-5)
    assert uneven_use(codebook[:1].repeat(12, 1), codebook).item() == pytest.approx(1, abs=1e-5)
    # Two codes of four: half of the largest entropy.
    assert uneven_use(codebook[:2].repeat(6, 1), codebook).item() == pytest.approx(0.5, abs=1e-5)


def test_unsteadiness_is_the_mean_squared_step():
    vectors = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]])
    assert unsteadiness(vectors).item() == (1 + 0 + 0 + 4) / 4
    assert unsteadiness(vectors[:, :1]).item() == 0


def test_a_view_is_the_same_clip_moved_as_a_whole():
    clip = torch.rand(2, 3, 9, 11, 3, generator=torch.Generator().manual_seed(0))
    seen = set()
    for seed in range(40):
        view = shifted_view(clip, torch.Generator().manual_seed(seed))
        inner = view[:, :, MAX_SHIFT:-MAX_SHIFT, MAX_SHIFT:-MAX_SHIFT]
        size = inner.shape[2:4]
        matches = [
            (row, column)
            for row in range(2 * MAX_SHIFT + 1)
            for column in range(2 * MAX_SHIFT + 1)
            if torch.equal(inner, clip[:, :, row : row + size[0], column : column + size[1]])
        ]
        assert len(matches) == 1
        seen |= set(matches)
    assert len(seen) > 10


def test_only_actions_that_are_told_count():
    logits = torch.tensor([[[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]])
    told = labelled_cross_entropy(logits, torch.tensor([[2, -1]]))
    assert told.item() == pytest.approx(torch.tensor(3.0).log().item())
    assert labelled_cross_entropy(logits, torch.tensor([[-1, -1]])).item() == 0
