"""Videos whose frames say their own number: eight stripes, white where a bit is set."""

import json
import struct
import subprocess
from fractions import Fraction

import av
import h5py
import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
import pytest

from genie_gym.data import videos
from genie_gym.data.hdf5 import Recording
from genie_gym.data.verify import find_faults
from genie_gym.data.videos import ImportConfig, Judge, TimedFrame, import_videos, resample
from genie_gym.data.windows import EpisodeWindows
from genie_gym.errors import ConfigError, DataError

CODECS = {"mp4": "libx264", "mov": "libx264", "mkv": "libx264", "webm": "libvpx", "avi": "mpeg4"}
WIDTH, HEIGHT = 64, 32
DEFECTS = ("frozen", "black", "cuts", "duplicate", "filter")
BITS = 1 << np.arange(8)


def numbered(index):
    stripes = np.where(index & BITS, 255, 0).astype(np.uint8)
    return np.repeat(np.broadcast_to(np.repeat(stripes, 8), (HEIGHT, WIDTH))[..., None], 3, -1)


def numbers(frames):
    """Read the number back from every frame of any size."""
    stripes = np.stack([part.mean(axis=(1, 2, 3)) for part in np.array_split(frames, 8, axis=2)])
    return ((stripes > 128) * BITS[:, None]).sum(axis=0).tolist()


def write(path, images, fps=30):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix[1:]], rate=fps)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_numbered(path, num_frames, fps=30):
    return write(path, [numbered(index) for index in range(num_frames)], fps)


@pytest.fixture
def video(tmp_path):
    """Hold 50 numbered frames at 30 per second."""
    return write_numbered(tmp_path / "video.mp4", 50)


@pytest.fixture
def out(tmp_path):
    """Where a failing import would have written; it must leave nothing whole or half."""
    folder = tmp_path / "made" / "out"
    yield folder
    assert not folder.parent.exists() or not list(folder.parent.iterdir())


def load(video, out, **changes):
    config = ImportConfig(width=32, height=16, **changes)
    import_videos([video], out, config, progress=False)
    return Recording.open(out).load()


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("num_frames", [1, 2, 3, 29, 40])
def test_at_its_own_rate_a_video_keeps_every_frame_once(tmp_path, suffix, num_frames):
    video = write_numbered(tmp_path / f"video.{suffix}", num_frames)
    rows = load(video, tmp_path / "out", fps=30)
    assert numbers(rows.frames) == list(range(num_frames))


@pytest.mark.parametrize(
    ("source", "fps", "seen"),
    [
        (30, 10, range(0, 50, 3)),
        (30, 60, [index // 2 for index in range(100)]),
        (30, 12, [int(2.5 * index) for index in range(20)]),
        (Fraction(30000, 1001), 29.97, range(50)),
        (12.5, 5, [int(2.5 * index) for index in range(20)]),
    ],
)
def test_frames_are_chosen_by_their_timestamps(tmp_path, source, fps, seen):
    rate = Fraction(source).limit_denominator(1001)
    video = write_numbered(tmp_path / "video.mp4", 50, rate)
    assert numbers(load(video, tmp_path / "out", fps=fps).frames) == list(seen)


def test_a_still_picture_is_shown_until_the_next_begins():
    times = [Fraction(5), Fraction("5.4"), Fraction("6.5"), Fraction("6.6")]
    frames = [
        TimedFrame(begin=time, end=time + Fraction(1, 10), tick=Fraction(1, 1000), image=index)
        for index, time in enumerate(times)
    ]
    # Seen at 5.0, 5.25, 5.5, ..., 6.5; the last picture comes after 6.5 and goes before 6.75.
    assert list(resample(frames, Fraction(4))) == [0, 0, 1, 1, 1, 1, 2]


def test_clips_are_episodes_of_which_no_window_crosses_the_border(video, tmp_path, monkeypatch):
    monkeypatch.setattr(videos, "SHARD_BYTES", 32 * 32 * 16 * 3)
    config = ImportConfig(fps=30, width=32, height=16)
    summary = import_videos([video, video], tmp_path / "out", config, progress=False)
    assert (summary.num_clips, summary.num_frames, summary.dropped) == (8, 100, {})
    recording = Recording.open(tmp_path / "out")
    assert find_faults(tmp_path / "out") == []
    assert not recording.has_actions and recording.frame_shape == (16, 32, 3)
    lengths = [16, 16, 16, 2] * 2
    assert [episode.length for episode in recording.episodes] == lengths
    assert [episode.shard for episode in recording.episodes] == [0, 0, 1, 1, 1, 2, 2, 3]
    rows = recording.load()
    assert rows.episode_ids.tolist() == np.repeat(np.arange(8), lengths).tolist()
    starts = EpisodeWindows(rows).valid_starts(16)
    assert starts.tolist() == [0, 16, 32, 50, 66, 82]


def test_a_file_says_where_each_clip_comes_from(video, tmp_path):
    load(video, tmp_path / "out", fps=30)
    with h5py.File(tmp_path / "out" / "shard-00000.h5") as file:
        assert set(file) == {"frames", "episode_ids"}
        assert (file.attrs["fps"], file.attrs["format_version"]) == (30, 1)
        about = json.loads(file["episode_ids"].attrs["2"])
    assert (about["video"], about["start"]) == (str(video), 32 / 30)
    assert about["quality"] == 1 - max(about[key] for key in DEFECTS)


def test_of_the_lowest_rate_one_frame_is_left(video, tmp_path):
    assert numbers(load(video, tmp_path / "out", fps=0.001).frames) == [0]


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_a_video_that_was_filmed_sideways_stands_upright(tmp_path, angle):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[: HEIGHT // 2, : WIDTH // 2] = 255
    flat = write(tmp_path / "flat.mp4", [image] * 2, 10)
    turned = tmp_path / "turned.mp4"
    flags = ["-loglevel", "error", "-display_rotation", str(angle)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *flags, "-i", flat, "-c", "copy", turned]
    subprocess.run(command, check=True)
    frame = load(turned, tmp_path / "out").frames[0]
    quarters = frame.reshape(2, 8, 2, 16, 3).mean(axis=(1, 3, 4)).round(-2)
    np.testing.assert_array_equal(quarters > 0, np.rot90(quarters_of(image), angle // 90))


def quarters_of(image):
    return image[:: HEIGHT // 2, :: WIDTH // 2, 0] > 0


def test_bad_clips_are_dropped_and_counted_by_their_worst_defect(tmp_path):
    moving, black = np.full((16, HEIGHT, WIDTH, 3), 100, np.uint8), np.zeros((16, HEIGHT, WIDTH, 3))
    for index, image in enumerate(moving):
        image[8:16, 3 * index : 3 * index + 8] = 255
    flickering = np.where(np.arange(16)[:, None, None, None] % 2, moving, 0)
    images = np.concatenate([moving, moving[:1].repeat(16, 0), black, flickering, moving])
    images = list(images.astype(np.uint8))
    video = write(tmp_path / "video.mp4", images, 10)
    config = ImportConfig(width=32, height=16, min_quality=0.5)
    summary = import_videos([video], tmp_path / "out", config, progress=False)
    assert (summary.num_clips, summary.num_frames) == (1, 16)
    assert summary.dropped == {"frozen": 2, "cuts": 1, "duplicate": 1}


def test_a_judge_sees_every_clip_and_its_name_is_kept(video, tmp_path):
    seen = []

    def score(frames):
        seen.append(numbers(frames))
        return 1 - len(seen) / 4

    config = ImportConfig(fps=30, width=32, height=16)
    judge = Judge(name="filters/mine", score=score)
    import_videos([video], tmp_path / "out", config, judge=judge, progress=False)
    assert seen == [list(range(0, 16)), list(range(16, 32)), list(range(32, 48)), [48, 49]]
    with h5py.File(tmp_path / "out" / "shard-00000.h5") as file:
        about = [json.loads(text) for text in file["episode_ids"].attrs.values()]
    assert [clip["filter"] for clip in about] == [0.25, 0.5, 0.75, 1]
    for clip in about:
        assert clip["quality"] == 1 - max(clip[key] for key in DEFECTS)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["settings"]["filter"] == "filters/mine"


def damaged(path):
    content = bytearray(write_numbered(path, 200).read_bytes())
    middle = content.index(b"mdat") + 2000
    content[middle : middle + 1500] = bytes(1500)
    path.write_bytes(content)


def without_pictures(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode()])


def without_frames(path):
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.start_encoding()


def truncated(path):
    content = write_numbered(path, 50).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def held_for_days(path):
    """Give the only frame the longest duration that the table of mp4 can hold."""
    content = bytearray(write_numbered(path, 1).read_bytes())
    table = content.index(b"stts")
    content[table + 16 : table + 20] = struct.pack(">I", 2**31 - 1)
    path.write_bytes(content)


def list_of_files(path):
    """Name a file that is not there: opening it would be another error."""
    path.write_text("ffconcat version 1.0\nfile absent.mp4\n")


def animation(path):
    imageio.mimwrite(path, [numbered(index) for index in range(9)], format="gif")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, r"video .*bad.mp4 does not exist. Check the path"),
        (lambda path: path.mkdir(), r"video .*bad.mp4 does not exist"),
        (
            lambda path: path.write_text("hello " * 99),
            r"bad.mp4 cannot be decoded .* copy it again",
        ),
        (lambda path: path.write_bytes(b""), r"bad.mp4 cannot be decoded as video: Invalid data"),
        (truncated, r"bad.mp4 cannot be decoded as video: Invalid data found"),
        (damaged, r"bad.mp4 cannot be decoded as video: .*ffmpeg -i bad.mp4 repaired.mp4"),
        (held_for_days, r"bad.mp4 cannot be decoded as video: no frame for 139810 s"),
        (list_of_files, r"bad.mp4 is not in the format of mp4, .*: it begins with b'ffconcat vers"),
        (animation, r"bad.mp4 is not in the format of mp4, .*: it begins with b'GIF8"),
        (without_pictures, r"bad.mp4 holds no pictures, only other streams. Leave it out"),
        (without_frames, r"bad.mp4 holds no frame. Leave it out, or record it again"),
    ],
)
def test_a_bad_video_is_refused_and_leaves_nothing(video, tmp_path, out, make, text):
    make(tmp_path / "bad.mp4")
    with pytest.raises(DataError, match=text):
        import_videos([video, tmp_path / "bad.mp4"], out, ImportConfig(), progress=False)


def test_an_import_of_nothing_good_leaves_nothing(tmp_path, out):
    video = write(tmp_path / "still.mp4", [numbered(7)] * 20)
    with pytest.raises(DataError, match=r"no clip reached quality 0.5: {'frozen': 1} dropped. Low"):
        load(video, out, min_quality=0.5)


def test_a_folder_with_something_in_it_is_left_alone(video, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(DataError, match=r"out is there already and not empty. Name another --out"):
        load(video, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_two_imports_do_not_write_one_folder(video, tmp_path):
    (tmp_path / ".out.part").mkdir()
    with pytest.raises(DataError, match=r"\.out\.part is there already: out is being written"):
        load(video, tmp_path / "out")
    assert (tmp_path / ".out.part").is_dir()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fps": 0}, r"fps must lie in \[0.001, 1000\], got 0"),
        ({"fps": 0.0004}, r"fps must lie in \[0.001, 1000\], got 0.0004"),
        ({"fps": float("nan")}, r"fps must lie in \[0.001, 1000\], got nan"),
        ({"height": 7}, "size must be at least 8x8 pixels, got 160x7"),
        ({"clip_length": 1}, "clip_length must be at least 2, got 1"),
        ({"min_quality": 1.5}, r"min_quality must lie in \[0, 1\], got 1.5"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(change, text):
    with pytest.raises(ConfigError, match=text):
        ImportConfig(**change)
