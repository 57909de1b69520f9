"""A text-to-image pipeline that is tiny and untrained, but a real one, on disk as users have it."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch

from genie_gym.envs.text_prompts import picture_from_text
from genie_gym.errors import ConfigError, MissingExtraError, PromptError


def save_pipeline(folder):
    """Write a Stable Diffusion of 20 thousand weights that draws 16 x 16 pixels."""
    import diffusers
    import transformers

    characters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = [*characters, *(f"{one}</w>" for one in characters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    begin, end = len(words) - 2, len(words) - 1
    (folder.parent / "vocab.json").write_text(json.dumps(vocabulary))
    (folder.parent / "merges.txt").write_text("#version: 0.2\n")
    files = [str(folder.parent / name) for name in ("vocab.json", "merges.txt")]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text_encoder = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=16,
                bos_token_id=begin,
                eos_token_id=end,
                pad_token_id=end,
            )
        )
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            layers_per_block=1,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=8,
            attention_head_dim=2,
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            sample_size=16,
        )
    diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=transformers.CLIPTokenizer(*files, model_max_length=16),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    pytest.importorskip("diffusers", reason="needs genie-gym[text]")
    pytest.importorskip("transformers", reason="needs genie-gym[text]")
    folder = tmp_path_factory.mktemp("text") / "pipeline"
    save_pipeline(folder)
    return folder


@pytest.fixture
def copy(pipeline, tmp_path):
    return shutil.copytree(pipeline, tmp_path / "pipeline")


def change_index(folder, **components):
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), **components}))


def draw(pipeline, text="pong", **options):
    return picture_from_text(text, pipeline, num_inference_steps=2, **options)


def test_a_text_becomes_a_picture_that_follows_from_text_and_seed(pipeline):
    picture = draw(pipeline)
    assert picture.shape == (16, 16, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10
    np.testing.assert_array_equal(picture, draw(str(pipeline)))
    assert (picture != draw(pipeline, seed=1)).any()
    assert (picture != draw(pipeline, text="ball and paddle")).any()


def test_pickled_weights_are_refused(copy):
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ConfigError, match=r"cannot be loaded safely: .*safetensors"):
        draw(copy)


def test_code_of_a_pipeline_is_not_run(copy, tmp_path):
    trap = f"open({str(tmp_path / 'was_run')!r}, 'w')\nclass Trap: pass\n"
    for name in ("unet/trap.py", "trap.py", "pipeline.py"):
        (copy / name).write_text(trap)
    whole = (copy / "model_index.json").read_text()
    for components in (
        {"unet": ["trap", "Trap"]},
        {"_class_name": ["trap", "Trap"]},
        {"unet": ["antigravity", "Trap"]},
    ):
        change_index(copy, **components)
        with pytest.raises(ConfigError, match="cannot be loaded safely"):
            draw(copy)
        (copy / "model_index.json").write_text(whole)
    assert not (tmp_path / "was_run").exists()
    assert "antigravity" not in sys.modules


def test_a_folder_without_a_pipeline_is_refused(pipeline, tmp_path):
    with pytest.raises(ConfigError, match=r"Give the folder of a diffusers text-to-image pipeline"):
        draw(tmp_path)


def test_an_empty_text_is_refused(tmp_path):
    with pytest.raises(PromptError, match="the text is empty"):
        picture_from_text(" ", tmp_path)


def test_without_the_extra_its_name_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'genie-gym\[text\]'"):
        picture_from_text("pong", tmp_path)
