"""Text becomes a picture to begin from, through a diffusion pipeline that the user supplies."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from genie_gym.errors import ConfigError, MissingExtraError, PromptError


def picture_from_text(
    text: str, pipeline: str | Path, *, seed: int = 0, device: str = "cpu", **settings: Any
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture that a text-to-image pipeline of diffusers makes of a text.

    Weights are read from safetensors alone; a pipeline that brings code or pickled weights is
    refused, so that opening one runs nothing of it.

    Args:
        text: what the picture should show.
        pipeline: a folder that `save_pretrained` wrote, or the id of a hub repository.
        seed: of the picture.
        device: where the pipeline runs.
        settings: further arguments of the pipeline's call: `num_inference_steps`,
            `guidance_scale`, `height`, ...

    Raises:
        MissingExtraError: the extra genie-gym[text] is not installed.
        PromptError: the text is empty, or the pipeline makes no picture of it.
        ConfigError: there is no such pipeline, or it cannot be loaded safely.
    """
    if not text.strip():
        raise PromptError("the text is empty: say what the picture should show")
    loaded = _load(pipeline).to(device)
    loaded.set_progress_bar_config(disable=True)
    generator = torch.Generator(device).manual_seed(seed)
    try:
        images = loaded(text, generator=generator, **settings).images
    except (AttributeError, TypeError, ValueError) as error:
        raise PromptError(
            f"pipeline {pipeline} makes no picture of a text: {error}. Take a text-to-image one"
        ) from error
    image: Image.Image = images[0]
    return np.array(image.convert("RGB"), np.uint8)


def _load(pipeline: str | Path) -> Any:
    try:
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise MissingExtraError(
            "a prompt of text needs diffusers and transformers, which are not installed: "
            "pip install 'genie-gym[text]'"
        ) from error
    load: Any = DiffusionPipeline.from_pretrained  # its types do not name it
    try:
        return load(str(pipeline), use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, AttributeError, ImportError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"pipeline {str(pipeline)!r} cannot be loaded safely: {reason}. Give the folder of a "
            "diffusers text-to-image pipeline with safetensors weights, or the id of one on the hub"
        ) from error
