import pytest
import torch

from genie_gym.nn.patches import grid_size, patchify, unpatchify


@pytest.mark.parametrize("patch_size", [4, 16])
@pytest.mark.parametrize(("height", "width"), [(90, 160), (64, 64), (5, 3), (16, 33)])
def test_unpatchify_undoes_patchify_also_where_frames_were_padded(height, width, patch_size):
    frames = torch.rand(2, 2, height, width, 3, generator=torch.Generator().manual_seed(0))
    patches = patchify(frames, patch_size)
    rows, columns = grid_size(height, width, patch_size)
    assert patches.shape == (2, 2, rows * columns, patch_size**2 * 3)
    assert torch.equal(unpatchify(patches, patch_size, height, width), frames)


def test_ninety_rows_need_a_padded_last_row_of_patches():
    assert grid_size(90, 160, 4) == (23, 40)
    assert grid_size(90, 160, 16) == (6, 10)
    patches = patchify(torch.ones(1, 1, 90, 160, 3), 4).view(23, 40, 4, 4, 3)
    assert patches[:22].min() == 1
    assert patches[22, :, :2].min() == 1
    assert patches[22, :, 2:].max() == 0


def test_patches_lie_row_by_row_with_their_pixels_in_reading_order():
    frame = torch.arange(16.0).view(1, 1, 4, 4, 1)
    assert patchify(frame, 2)[0, 0].tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]
