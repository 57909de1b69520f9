import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from genie_gym.errors import ConfigError, DataError
from genie_gym.evaluation.video import contact_sheet, write_gif, write_video

WRITERS = [(write_video, ".mp4"), (write_gif, ".gif"), (contact_sheet, ".png")]


def clip(num_frames, height=16, width=16):
    """A bright column that walks to the right on a dark field, so that every frame differs."""
    frames = np.full((num_frames, height, width, 3), (20, 40, 60), np.uint8)
    for index in range(num_frames):
        frames[index, :, index % width] = (200, 180, 160)
    return frames


def decode(path):
    with imageio.get_reader(path, format="FFMPEG") as reader:
        return np.array(list(reader.iter_data()))


@pytest.mark.parametrize("num_frames", [1, 2, 31, 99, 100, 101])
@pytest.mark.parametrize("fps", [15, 30])
def test_a_video_has_every_frame(tmp_path, num_frames, fps):
    path = tmp_path / "clip.mp4"
    frames = clip(num_frames)
    write_video(path, frames, fps=fps)
    decoded = decode(path)
    assert decoded.shape == (num_frames, 64, 64, 3)
    brightest = decoded[:, :, 2::4].mean(axis=(1, 3)).argmax(axis=1)
    assert brightest.tolist() == [index % 16 for index in range(num_frames)]


@pytest.mark.parametrize(("size", "scale"), [((63, 65), 1), ((63, 65), 3), ((7, 5), 2)])
def test_odd_sizes_become_even_and_stay_yuv420p(tmp_path, size, scale):
    path = tmp_path / "clip.mp4"
    write_video(path, clip(5, *size), scale=scale)
    width, height = (side * scale + side * scale % 2 for side in reversed(size))
    assert decode(path).shape == (5, height, width, 3)
    reader = imageio_ffmpeg.read_frames(path)
    assert next(reader)["pix_fmt"].startswith("yuv420p")
    reader.close()


def test_a_gif_repeats_the_colours_exactly_and_lasts_as_long_as_the_clip(tmp_path):
    path = tmp_path / "clip.gif"
    frames = clip(10)
    frames[5] = frames[4]  # equal neighbours are merged
    write_gif(path, frames, fps=10, scale=3)
    with Image.open(path) as gif:
        assert gif.n_frames == 9
        shown, durations = [], []
        for index in range(gif.n_frames):
            gif.seek(index)
            durations.append(gif.info["duration"])
            shown.append(np.array(gif.convert("RGB"))[::3, ::3])
    assert sum(durations) == 1000
    assert np.array_equal(np.array(shown), np.delete(frames, 5, axis=0))


def test_a_gif_of_one_frame_can_be_opened(tmp_path):
    write_gif(tmp_path / "one.gif", clip(1))
    with Image.open(tmp_path / "one.gif") as gif:
        assert gif.size == (32, 32)


def test_a_contact_sheet_shows_every_frame_in_order(tmp_path):
    path = tmp_path / "sheet.png"
    frames = clip(5, height=6, width=8)
    contact_sheet(path, frames, columns=3, scale=2)
    with Image.open(path) as image:
        sheet = np.array(image)
    tiles = [(row, column) for row in range(2) for column in range(3)][:5]
    for frame, (row, column) in zip(frames, tiles, strict=True):
        top, left = 4 + row * 16, 4 + column * 20
        assert np.array_equal(sheet[top : top + 12 : 2, left : left + 16 : 2], frame)


def test_labels_stand_above_their_frames(tmp_path):
    contact_sheet(tmp_path / "plain.png", clip(2), scale=4)
    contact_sheet(tmp_path / "named.png", clip(2), labels=["real", "imagined"], scale=4)
    with Image.open(tmp_path / "plain.png") as plain, Image.open(tmp_path / "named.png") as named:
        assert named.height > plain.height
        strip = np.array(named)[4:18]
    assert (strip > 200).any()


def test_labels_must_match_the_frames(tmp_path):
    with pytest.raises(DataError, match="one label per frame, got 1 for 2"):
        contact_sheet(tmp_path / "sheet.png", clip(2), labels=["real"])


@pytest.mark.parametrize(("write", "suffix"), WRITERS)
@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"uint8 \(T, H, W, 3\), got float32 \(2, 8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), r"uint8 \(T, H, W, 3\), got uint8 \(8, 8, 3\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"uint8 \(T, H, W, 3\), got uint8 \(2, 3, 8, 8\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"must not be empty, got \(0, 8, 8, 3\)"),
    ],
    ids=["float", "one frame", "channels first", "empty"],
)
def test_wrong_frames_are_refused_and_nothing_is_written(tmp_path, write, suffix, frames, text):
    with pytest.raises(DataError, match=text):
        write(tmp_path / f"clip{suffix}", frames)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("write", "suffix"), WRITERS)
def test_a_wrong_name_or_scale_is_refused(tmp_path, write, suffix):
    with pytest.raises(ConfigError, match=f"must end in {suffix}, got .*clip.avi"):
        write(tmp_path / "clip.avi", clip(1))
    with pytest.raises(ConfigError, match="scale must be at least 1, got 0"):
        write(tmp_path / f"clip{suffix}", clip(1), scale=0)


def test_a_speed_of_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="fps must be above 0, got 0"):
        write_video(tmp_path / "clip.mp4", clip(1), fps=0)


@pytest.mark.parametrize(("write", "suffix"), WRITERS)
def test_only_the_finished_file_is_left(tmp_path, write, suffix):
    path = tmp_path / "new folder" / f"clip{suffix}"
    write(path, clip(3))
    write(path, clip(3))  # an older file is replaced
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_broken_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "clip.png"
    path.write_bytes(b"old")

    def fail(self, file, **options):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        contact_sheet(path, clip(1))
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.png"]
