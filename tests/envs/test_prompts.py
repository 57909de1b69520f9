import io
import re
import struct
import zlib

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

import genie_gym
from genie_gym.envs.prompts import fit_picture, prompt_frames, read_picture
from genie_gym.errors import ConfigError, DataError, PictureTooLargeError, PromptError
from genie_gym.models.bundle import load_world

RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)


@pytest.fixture(scope="module")
def world(endless_bundle):
    return load_world(endless_bundle)


@pytest.fixture
def quarters():
    """A picture whose left half is red and whose right half is blue."""
    picture = np.full((40, 80, 3), RED, np.uint8)
    picture[:, 40:] = BLUE
    return picture


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_header(width, height):
    """Return a PNG of that size without its pixels."""
    chunks = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "JPEG"])
def test_a_picture_file_is_read_as_it_was_written(quarters, tmp_path, format):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    content = encoded(Image.fromarray(quarters), format, **options.get(format, {}))
    (tmp_path / "picture").write_bytes(content)
    for source in (content, tmp_path / "picture", str(tmp_path / "picture")):
        picture = read_picture(source)
        assert picture.dtype == np.uint8
        assert np.abs(picture.astype(int) - quarters).max() <= (3 if format == "JPEG" else 0)


def test_every_kind_of_colour_becomes_rgb(quarters):
    image = Image.fromarray(quarters)
    assert (read_picture(encoded(image.quantize(4), "PNG")) == quarters).all()
    cmyk = read_picture(encoded(image.convert("CMYK"), "JPEG", quality=100))
    assert np.abs(cmyk.astype(int) - quarters).max() <= 12
    ramp = np.linspace(0, 65535, 200).astype(np.uint16)[None].repeat(3, axis=0)
    grey = read_picture(encoded(Image.fromarray(ramp), "PNG"))
    assert (grey == (ramp >> 8)[..., None]).all()
    bits = np.eye(9, dtype=bool)
    assert (read_picture(encoded(Image.fromarray(bits), "PNG"))[..., 0] == bits * 255).all()


def test_white_paper_shows_through_what_is_transparent():
    image = Image.new("RGBA", (4, 1), (*GREEN, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    picture = read_picture(encoded(image, "PNG"))
    assert picture[0].tolist() == [list(GREEN), [255] * 3, [127] * 3, list(GREEN)]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, *RED])
    palette.putpixel((1, 0), 1)
    assert read_picture(encoded(palette, "PNG", transparency=0))[0].tolist() == [[255] * 3, [*RED]]


def test_a_photo_is_turned_upright(quarters):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    picture = read_picture(encoded(Image.fromarray(quarters), "PNG", exif=exif))
    np.testing.assert_array_equal(picture, np.rot90(quarters, -1))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if format == "WEBP" else {}
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert (read_picture(content) == RED).all()


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(quarters):
    with pytest.raises(PictureTooLargeError, match=r"2500000000 pixels.* Make it smaller"):
        read_picture(png_header(50_000, 50_000))
    with pytest.raises(PictureTooLargeError, match=r"50000000 pixels.* has 10000 x 10000"):
        read_picture(png_header(10_000, 10_000))
    content = encoded(Image.fromarray(quarters), "PNG")
    assert read_picture(content, max_pixels=3200).shape == (40, 80, 3)
    with pytest.raises(PictureTooLargeError, match="sides of 32767, but has 40000 x 1"):
        read_picture(png_header(40_000, 1))
    with pytest.raises(PictureTooLargeError, match=r"3199 pixels.* has 80 x 40"):
        read_picture(content, max_pixels=3199)


def test_what_is_no_picture_is_refused(quarters, tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(PromptError, match=r"empty\.png holds 0 bytes\. Hand over a PNG, JPEG"):
        read_picture(tmp_path / "empty.png")
    with pytest.raises(PromptError, match="picture holds 0 bytes"):
        read_picture(b"")
    with pytest.raises(PromptError, match=r"no picture: it begins with b'%PDF-1\.7'\. Hand"):
        read_picture(b"%PDF-1.7")
    with pytest.raises(PromptError, match="is no picture"):  # not among the formats
        read_picture(encoded(Image.fromarray(quarters), "TIFF"))
    with pytest.raises(PromptError, match=r"absent\.png cannot be read: No such file"):
        read_picture(tmp_path / "absent.png")
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), "JPEG")
    with pytest.raises(PromptError, match=r"is a damaged JPEG file: .* Save it again"):
        read_picture(content[: len(content) // 2])


def test_damaged_files_raise_nothing_else(quarters):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(quarters)
    contents = [encoded(image, format, exif=exif) for format in ("PNG", "JPEG", "WEBP")]
    contents += [encoded(image, "GIF"), encoded(image, "BMP")]
    num_refused = 0
    for content in contents * 40:
        damaged = bytearray(content[: rng.integers(1, len(content) + 1)])
        for place in rng.integers(len(damaged), size=3):
            damaged[place] = rng.integers(256)
        try:
            read_picture(bytes(damaged))
        except PromptError:
            num_refused += 1
    assert num_refused > 100


def test_a_letterbox_keeps_all_and_a_crop_fills_the_frame(quarters):
    letterbox = fit_picture(quarters, 64, 64)
    assert not letterbox[:16].any() and not letterbox[48:].any()
    assert (letterbox[16:48, :32] == RED).all() and (letterbox[16:48, 32:] == BLUE).all()
    narrow = quarters.copy()
    narrow[:, :20] = narrow[:, 60:] = GREEN
    crop = fit_picture(narrow, 64, 64, fit="crop")
    assert (crop[:, :31] == RED).all() and (crop[:, 33:] == BLUE).all()
    stretched = fit_picture(narrow, 64, 64, fit="stretch")
    assert (stretched[:, :16] == GREEN).all() and (stretched[:, 17:31] == RED).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (7, 5), (64, 64), (210, 160)])
@pytest.mark.parametrize("fit", ["letterbox", "crop", "stretch"])
def test_any_size_fits(shape, fit):
    picture = np.full((*shape, 3), GREEN, np.uint8)
    frame = fit_picture(picture, 48, 64, fit=fit)
    assert frame.shape == (48, 64, 3)
    assert (frame == GREEN).all(axis=2).any()
    assert fit == "letterbox" or (frame == GREEN).all()


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("fit", ["letterbox", "crop"])
def test_a_screenshot_of_the_console_becomes_what_a_recording_holds(scale, fit):
    from genie_gym.envs.real import RealEnv

    small, whole = (RealEnv("Pong", frame_size=side, max_pool=False) for side in (64, None))
    for env in (small, whole):
        obs, _ = env.reset(seed=0)
        for _ in range(40):
            obs, *_ = env.step(3)
        if env is small:
            recorded = obs
    screenshot = obs.repeat(scale, axis=0).repeat(scale, axis=1)
    frame = fit_picture(screenshot, 64, 64, fit=fit)
    assert np.abs(frame.astype(int) - recorded).max() <= 1


def test_a_fit_that_is_not_known_is_refused(quarters):
    with pytest.raises(ConfigError, match=r"one of \['letterbox', 'crop', 'stretch'\], got 'fill'"):
        fit_picture(quarters, 64, 64, fit="fill")


def test_a_prompt_may_be_anything_that_holds_a_picture(world, quarters, tmp_path):
    image = Image.fromarray(quarters)
    image.save(tmp_path / "picture.webp", lossless=True)
    np.save(tmp_path / "picture.npy", quarters)
    sources = [
        quarters,
        quarters[None],
        image,
        encoded(image, "PNG"),
        tmp_path / "picture.webp",
        str(tmp_path / "picture.npy"),
    ]
    for source in sources:
        np.testing.assert_array_equal(
            prompt_frames(source, world), fit_picture(quarters, 64, 64)[None]
        )
    cropped = prompt_frames(quarters, world, fit="crop")
    np.testing.assert_array_equal(cropped[0], fit_picture(quarters, 64, 64, fit="crop"))
    grey = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    np.testing.assert_array_equal(prompt_frames(grey, world)[0], np.stack([grey] * 3, axis=-1))


def test_frames_of_the_worlds_size_stay_as_they_are(world, clip):
    np.testing.assert_array_equal(prompt_frames(clip, world), clip)
    assert prompt_frames(clip[:, ::-1, :32], world).shape == clip.shape


def test_a_video_gives_its_last_frames_at_the_worlds_rate(world, tmp_path):
    frames = np.full((150, 64, 64, 3), 0, np.uint8)
    for index, frame in enumerate(frames):
        frame[:] = index
    # 30 frames a second, of which a world of 15 sees every other one.
    imageio.mimwrite(tmp_path / "film.mp4", frames, fps=30, macro_block_size=1, quality=10)
    shown = prompt_frames(tmp_path / "film.mp4", world)
    assert shown.shape == (64, 64, 64, 3)
    expected = np.arange(150)[::2][-64:]
    assert np.abs(shown.mean(axis=(1, 2, 3)) - expected).max() < 3
    (tmp_path / "no.mp4").write_bytes(b"no film")
    with pytest.raises(DataError, match=r"no\.mp4 .* video"):
        prompt_frames(tmp_path / "no.mp4", world)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (np.zeros((64, 64, 3)), "got float64 (64, 64, 3)"),
        (np.zeros((64, 64, 4), np.uint8), "got uint8 (64, 64, 4)"),
        (np.zeros((0, 64, 64, 3), np.uint8), "got uint8 (0, 64, 64, 3)"),
        (np.zeros((2, 64, 64), np.uint8), "got uint8 (2, 64, 64)"),
        (None, "must be a picture, or uint8 (H, W), (H, W, 3) or (T, H, W, 3), got object ()"),
        (["a", "b"], "got <U1 (2,)"),
    ],
)
def test_a_wrong_prompt_is_refused(world, prompt, text):
    with pytest.raises(PromptError, match=re.escape(text)):
        prompt_frames(prompt, world)


def test_a_file_of_pickled_objects_is_not_opened(world, tmp_path):
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(PromptError, match=r"text\.npy is no \.npy array of frames"):
        prompt_frames(tmp_path / "text.npy", world)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(PromptError, match=r"objects\.npy is no \.npy array of frames: Object arr"):
        prompt_frames(tmp_path / "objects.npy", world)


def test_a_sketch_is_one_picture(world, clip):
    with pytest.raises(PromptError, match="a sketch is one picture, got 3 frames"):
        prompt_frames(clip, world, sketch=True)


def test_a_world_made_from_a_picture_starts_there_at_every_reset(endless_bundle, quarters):
    env = genie_gym.create_environment(quarters, endless_bundle, fit="crop", temperature=0.5)
    same = genie_gym.create_environment(fit_picture(quarters, 64, 64, fit="crop"), endless_bundle)
    first, info = env.reset(seed=0)
    assert info == {}
    assert env.unwrapped.config.temperature == 0.5
    env.step(2)
    for seed in (None, 5):
        np.testing.assert_array_equal(env.reset(seed=seed)[0], first)
    np.testing.assert_array_equal(same.reset()[0], first)
    # A reset may still say otherwise.
    assert env.reset(options={"start": 3})[1] == {"start": 3}
    np.testing.assert_array_equal(env.reset()[0], first)


def test_the_game_begins_from_the_tokens_of_the_picture(world, endless_bundle, quarters):
    env = genie_gym.create_environment(quarters, endless_bundle)
    frames = torch.from_numpy(prompt_frames(quarters, world))[None]
    state = world.encode(frames, torch.zeros(1, 0, dtype=torch.int64))
    np.testing.assert_array_equal(env.reset()[0], world.decode(state)[0].numpy())
