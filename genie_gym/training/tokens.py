"""A recording as tokens and latent actions, computed once for the stages that learn from those."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor
from tqdm import tqdm

from genie_gym.data.batch import to_float
from genie_gym.files import replacing
from genie_gym.models.latent_action import LatentActionModel
from genie_gym.models.tokenizer import Tokenizer
from genie_gym.nn.patches import patchify, unpatchify
from genie_gym.training.data import TokenRows, TrainingData

CHUNK = 64
"""Frames a forward pass when a recording is tokenized; 512 take twice as long on a CPU."""
MANY = 4096
"""Frames whose patches are compared at once."""


def tokenize(
    data: TrainingData, tokenizer: Tokenizer, lam: LatentActionModel, cache: Path
) -> TokenRows:
    """Return tokens and latent actions of all rows, from the cache file if it fits.

    A cache belongs to one recording and one state of both models; any other is computed anew.
    """
    key = {"data": data.fingerprint, "models": _weights_hash(tokenizer, lam)}
    if cache.is_file() and (cached := _read_cache(cache, key)):
        return cached
    with _evaluation_mode(tokenizer, lam):  # both: codes may be named from what tokens show
        if looks_at_patches_alone(tokenizer):
            tokens = encode_patches(data, tokenizer)
        else:
            tokens = _encode_episodes(data, tokenizer, tokenizer.encode, "tokens")
        latents = _encode_episodes(data, lam, _infer_all(lam), "latent actions", min_window=2)
    rows = TokenRows(tokens, _shift(latents, data.rows.episode_ids))
    arrays = {"tokens": rows.tokens, "latent_actions": rows.latent_actions}
    with replacing(cache) as part:
        save_file(arrays, part, metadata=key)
    return rows


@contextmanager
def _evaluation_mode(*modules: torch.nn.Module) -> Iterator[None]:
    """Keep codebooks where they are; in training mode, encoding moves them."""
    modes = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, was_training in zip(modules, modes, strict=True):
            module.train(was_training)


def looks_at_patches_alone(tokenizer: Tokenizer) -> bool:
    """Return whether a token depends on its patch and place, and on nothing around them."""
    encoder = tokenizer.config.encoder
    return not encoder.is_spatial and encoder.temporal_window <= 1


@torch.inference_mode()
def encode_patches(data: TrainingData, tokenizer: Tokenizer) -> Int[np.ndarray, "rows S"]:
    """Return the tokens of all rows; of patches that look alike at a place, one is encoded.

    A game repeats itself: of 300,000 frames of Pong, 19 million patches, 64,000 differ. That takes
    a minute instead of a quarter of an hour. The tokenizer must be in evaluation mode.
    """
    size, num_places = tokenizer.config.patch_size, tokenizer.num_tokens
    known: list[dict[bytes, int]] = [{} for _ in range(num_places)]
    num_rows = len(data.rows.frames)
    tokens = np.empty((num_rows, num_places), np.int32)
    for begin in tqdm(range(0, num_rows, MANY), unit="chunk", desc="tokens"):
        chunk = slice(begin, min(begin + MANY, num_rows))
        frames = np.asarray(data.rows.frames[chunk])
        patches = patchify(torch.from_numpy(frames)[:, None], size)[:, 0].numpy()
        found = [_distinct(patches[:, place]) for place in range(num_places)]
        _learn(tokenizer, known, [distinct for distinct, _ in found])
        for place, (distinct, which) in enumerate(found):
            codes = [known[place][patch.tobytes()] for patch in distinct]
            tokens[chunk, place] = np.array(codes)[which]
    return tokens


def _distinct(
    patches: UInt8[np.ndarray, "N patch"],
) -> tuple[UInt8[np.ndarray, "distinct patch"], Int[np.ndarray, " N"]]:
    """Return each patch that occurs once, and which of them every patch is."""
    whole = np.ascontiguousarray(patches).view(f"V{patches.shape[1]}")[:, 0]
    _, first, which = np.unique(whole, return_index=True, return_inverse=True)
    return patches[first], which


def _learn(
    tokenizer: Tokenizer,
    known: list[dict[bytes, int]],
    found: list[UInt8[np.ndarray, "_ patch"]],
) -> None:
    """Encode the patches of each place that are not known yet."""
    new = [
        [patch for patch in patches if patch.tobytes() not in known[place]]
        for place, patches in enumerate(found)
    ]
    # Frames made of them: the i-th has the i-th new patch at every place that has so many.
    patches = np.zeros((max(map(len, new)), len(new), found[0].shape[1]), np.uint8)
    for place, some in enumerate(new):
        if some:
            patches[: len(some), place] = some
    device = next(tokenizer.parameters()).device
    for part in range(0, len(patches), CHUNK):
        chunk = torch.from_numpy(patches[part : part + CHUNK]).to(device)
        size, height, width = tokenizer.config.patch_size, tokenizer.height, tokenizer.width
        frames = to_float(unpatchify(chunk[:, None], size, height, width))
        codes = tokenizer.encode(frames).cpu()  # at once: reading a GPU code by code is slow
        for place, some in enumerate(new):
            for patch, code in zip(some[part : part + CHUNK], codes[:, 0, place], strict=False):
                known[place][patch.tobytes()] = int(code)


def _infer_all(lam: LatentActionModel) -> Callable[[Tensor], Tensor]:
    """Return a function that gives frame t the latent action that led to it, frame 0 a -1."""

    def infer(frames: Tensor) -> Tensor:
        if frames.shape[1] < 2:
            return torch.full(frames.shape[:2], -1)
        return torch.nn.functional.pad(lam.infer(frames), (1, 0), value=-1)

    return infer


def _shift(
    led_by: Int[np.ndarray, " rows"], episode_ids: Int[np.ndarray, " rows"]
) -> Int[np.ndarray, " rows"]:
    """Turn "the action that led to this row" into "the action taken on this row"."""
    taken = np.full(len(led_by), -1, dtype=np.int32)
    is_inside = episode_ids[1:] == episode_ids[:-1]
    taken[:-1] = np.where(is_inside, led_by[1:], -1)
    return taken


@torch.inference_mode()
def _encode_episodes(
    data: TrainingData,
    module: Tokenizer | LatentActionModel,
    encode: Callable[[Tensor], Tensor],
    what: str,
    *,
    min_window: int = 1,
) -> Int[np.ndarray, "rows ..."]:
    """Run an encoder over every episode in chunks, each with the frames before it as context."""
    device = next(module.parameters()).device
    config = module.config.encoder
    context = max(config.temporal_window - 1, 0) * config.num_layers + min_window - 1
    # One array from the start: small results kept between large temporaries would fragment memory.
    results: Int[np.ndarray, "rows ..."] | None = None
    with tqdm(total=len(data.rows.frames), unit="frame", desc=what) as bar:
        for episode in data.recording.episodes:
            for begin in range(episode.start, episode.start + episode.length, CHUNK):
                end = min(begin + CHUNK, episode.start + episode.length)
                first = max(begin - context, episode.start)
                frames = torch.from_numpy(data.rows.frames[first:end]).to(device)
                codes = encode(to_float(frames)[None])[0, begin - first :].cpu().numpy()
                if results is None:
                    results = np.empty((len(data.rows.frames), *codes.shape[1:]), np.int32)
                results[begin:end] = codes
                bar.update(end - begin)
    assert results is not None
    return results


def _weights_hash(*modules: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for module in modules:
        for x in module.state_dict().values():
            digest.update(x.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _read_cache(path: Path, key: dict[str, str]) -> TokenRows | None:
    try:
        with safe_open(path, framework="numpy") as file:
            if file.metadata() != key:
                return None
            return TokenRows(file.get_tensor("tokens"), file.get_tensor("latent_actions"))
    except SafetensorError:
        return None
