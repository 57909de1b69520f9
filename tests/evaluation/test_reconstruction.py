from dataclasses import replace

import numpy as np
import pytest
import torch

from genie_gym.errors import WorldError
from genie_gym.evaluation.config import EvaluationConfig
from genie_gym.evaluation.objects import find_objects
from genie_gym.evaluation.reconstruction import codebook_use, reconstruction
from genie_gym.evaluation.rollout import open_heldout
from genie_gym.models.world import World

CONFIG = EvaluationConfig(num_frames=40)


@pytest.fixture(scope="module")
def heldout(world, pipeline):
    return open_heldout(world, pipeline.recording)


class CopyWorld(World):
    """Shows the last real frame for ever."""

    def encode(self, frames, actions, source="real"):
        """Remember the newest frames."""
        self.shown = frames[:, -1]
        return super().encode(frames, actions, source)

    def decode(self, state):
        """Return them."""
        return self.shown


def test_the_error_is_that_of_the_tokenizer_frame_by_frame(world, heldout):
    report = reconstruction(world, heldout, CONFIG)
    rows = np.linspace(0, len(heldout.rows.frames) - 1, 40).astype(int)
    frames = heldout.rows.frames[rows]
    single = torch.from_numpy(frames).float()[:, None] / 255
    tokenizer = world.stack.tokenizer
    with torch.inference_mode():
        tokens = tokenizer.encode(single)
        rebuilt = (tokenizer.decode(tokens) * 255).round() / 255
    assert report["mse"] == pytest.approx((rebuilt - single).square().mean().item(), rel=1e-4)
    assert report["frames"] == 40
    assert report["frames_with_ball"] == find_objects(frames, "Pong").ball_seen.sum()
    codebook = report["codebook"]
    assert codebook["dead"] == codebook["codes"] - len(tokens.unique())
    assert 1 <= codebook["perplexity"] <= codebook["codes"]


def test_a_world_that_shows_what_it_saw_rebuilds_it_exactly(world, heldout):
    copying = CopyWorld(world.stack, world.starts, parts=world.parts, card=world.card)
    report = reconstruction(copying, heldout, CONFIG)
    assert (report["mse"], report["psnr"], report["ssim"]) == (0, 100, pytest.approx(1))
    assert (report["ball_within_1px"], report["ball_false"]) == (1, 0)
    assert (report["own_paddle_within_1px"], report["opponent_paddle_within_1px"]) == (1, 1)


def test_a_game_whose_objects_are_not_known_says_so(world, heldout):
    other = World(world.stack, world.starts, parts=world.parts, card=world.card)
    other.config = replace(world.config, game="Boxing")
    report = reconstruction(other, heldout, CONFIG)
    assert report["mse"] > 0 and report["ball_within_1px"] is None
    assert "this is Boxing at 64 x 64" in report["reason"]


def test_frames_of_another_size_are_refused(world, heldout):
    small = replace(heldout, rows=replace(heldout.rows, frames=heldout.rows.frames[:, ::2, ::2]))
    with pytest.raises(WorldError, match="Resize them to the world's size"):
        reconstruction(world, small, CONFIG)


def test_codes_in_even_use_have_their_number_as_perplexity():
    tokens = np.arange(4).repeat(3).reshape(2, 6)
    use = codebook_use(tokens, num_codes=10)
    assert use == {"codes": 10, "dead": 6, "perplexity": pytest.approx(4)}
