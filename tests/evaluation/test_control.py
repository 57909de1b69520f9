import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from genie_gym.data.hdf5 import Rows
from genie_gym.data.windows import EpisodeWindows
from genie_gym.errors import DataError
from genie_gym.evaluation.config import EvaluationConfig
from genie_gym.evaluation.control import control, delta_psnr, even_mean, latent_actions
from genie_gym.evaluation.latent_actions import (
    code_use,
    correspondence,
    count_pairs,
    heeding,
    infer_transitions,
    label_curve,
    majority_map,
)
from genie_gym.evaluation.paddle import (
    COMMANDS,
    DOWN,
    STILL,
    UP,
    has_room,
    held_way,
    obedience,
    way,
    why_unseen,
)
from genie_gym.evaluation.rollout import Heldout
from genie_gym.models.world import World

SMALL = EvaluationConfig(num_windows=12, context_length=3, num_transitions=300, num_maskgit_steps=1)
COMMAND_OF = np.array(list(COMMANDS.values()))
STRIDE, HIGHEST, LOWEST = 6, 12, 54


def paint(rows):
    """Return frames of an empty field with the own paddle, five rows high, at the given rows."""
    frames = np.full((len(rows), 64, 64, 3), (144, 72, 17), np.uint8)
    for frame, row in zip(frames, rows, strict=True):
        if row is not None:
            frame[row - 2 : row + 3, 56:58] = (92, 186, 92)
    return frames


def moved(row, action_way):
    return int(np.clip(row + STRIDE * (action_way - STILL), HIGHEST, LOWEST))


def heldout_of(frames, actions):
    num_rows = len(frames)
    actions = np.append(actions, -1).astype(np.int16)
    nothing = np.zeros(num_rows, bool)
    rows = Rows(
        frames=frames,
        actions=actions,
        rewards=np.zeros(num_rows, np.float32),
        terminations=nothing,
        truncations=nothing,
        episode_ids=np.zeros(num_rows, np.int64),
    )
    return Heldout(Path("made-by-hand"), rows, EpisodeWindows(rows), 1)


@pytest.fixture(scope="module")
def play():
    """600 steps in which every action, drawn anew every four steps, moves the paddle at once."""
    actions = np.repeat(np.random.default_rng(0).integers(6, size=150), 4)
    rows = [36]
    for action in actions:
        rows.append(moved(rows[-1], COMMAND_OF[action]))
    return heldout_of(paint(rows), actions)


class MovingWorld(World):
    """Moves the paddle as `ways` says, by real or latent action; names latent actions by sight."""

    ways = COMMAND_OF, np.array([UP, STILL, DOWN, STILL])

    def encode(self, frames, actions, source="real"):
        """Remember where the paddles are."""
        self.seen_in_context = source, actions
        painted = (frames[:, -1, :, 56] == torch.tensor([92, 186, 92])).all(-1)
        self.rows = [int(rows.nonzero().float().mean()) for rows in painted]
        return super().encode(frames, actions, source)

    def imagine(self, state, actions, *arguments, source="real", **options):
        """Move them."""
        ways = self.ways[source == "latent"]
        pairs = zip(self.rows, actions.tolist(), strict=True)
        self.rows = [moved(row, ways[action]) for row, action in pairs]
        return super().imagine(state, actions, *arguments, source=source, **options)

    def decode(self, state):
        """Show them."""
        return torch.from_numpy(paint(self.rows))

    def infer_latent_actions(self, frames):
        """Return 0 for up, 1 for still, 2 for down."""
        rows = (frames[..., 56, 1] == 186).float().argmax(-1)
        return (STILL + torch.sign(rows[:, 1:] - rows[:, :-1])).long()


class ContraryWorld(MovingWorld):
    """Goes the other way."""

    ways = DOWN - COMMAND_OF, np.array([DOWN, STILL, UP, STILL])


class FrozenWorld(MovingWorld):
    """Leaves the paddle where it is."""

    ways = np.full(6, STILL), np.full(4, STILL)


class EmptyWorld(MovingWorld):
    """Loses the paddle."""

    def decode(self, state):
        """Show the field alone."""
        return torch.from_numpy(paint([None] * len(self.rows)))


def same_parts(kind, world, parts=None):
    return kind(world.stack, world.starts, parts=parts or world.parts, card=world.card)


# --- the paddle


def test_a_paddle_moves_from_two_rows_a_step_on_and_an_unseen_one_goes_nowhere():
    found = way(np.array([-2.1, -2.0, 0.0, 2.0, 2.1, np.nan]))
    np.testing.assert_array_equal(found, [UP, STILL, STILL, STILL, DOWN, np.nan])


def test_the_first_step_of_a_held_command_is_not_judged():
    late = np.stack([paint([40, 34, 28]), paint([20, 20, 20]), paint([30, 30, 45])])
    np.testing.assert_array_equal(held_way(late), [UP, STILL, DOWN])


def test_room_is_what_three_longest_strides_take():
    rows = np.array([32.7, 32.9, 35.7, 35.9, np.nan])
    assert has_room(rows, UP).tolist() == [False, True, True, True, False]
    assert has_room(rows, DOWN).tolist() == [True, True, True, False, False]
    assert has_room(rows, STILL).tolist() == [True, True, True, True, False]


@pytest.mark.parametrize(
    ("kind", "share"), [(MovingWorld, 1), (ContraryWorld, 0), (FrozenWorld, 0), (EmptyWorld, 0)]
)
def test_obedience_is_that_of_a_world_known_to_obey_or_not(kind, share, world, play):
    report = obedience(same_parts(kind, world), play, SMALL)
    assert (report["value"], report["stderr"], report["count"]) == (share, 0, 12)
    assert set(report["by_action"]) == {"RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"}
    assert all(figures["count"] == 3 for figures in report["by_action"].values())
    assert report["recorded"]["value"] == 1
    assert report["recorded"]["count"] > 10


def test_a_recording_without_a_paddle_leaves_no_room(world):
    empty = heldout_of(paint([None] * 40), np.zeros(39))
    with pytest.raises(DataError, match=r"in no context has the paddle room.*Record longer play"):
        obedience(same_parts(MovingWorld, world), empty, SMALL)


def test_only_pong_has_a_paddle_that_is_known(world):
    assert why_unseen(world) is None
    other = same_parts(World, world)
    other.config = replace(world.config, game="Breakout")
    assert (
        why_unseen(other)
        == "paddles are found in Pong at 64 x 64 only; this is Breakout at 64 x 64"
    )
    other = World(world.stack, world.starts, parts=world.parts, card={})
    assert "must name Pong's actions" in why_unseen(other)


# --- true against random actions


class LevelWorld(World):
    """Shows the number of the last action as a grey level."""

    def imagine(self, state, actions, *arguments, **options):
        """Remember the action."""
        self.level = actions
        self.played = [*getattr(self, "played", []), actions]
        return super().imagine(state, actions, *arguments, **options)

    def decode(self, state):
        """Show it."""
        return self.level.to(torch.uint8)[:, None, None, None].expand(-1, 64, 64, 3)


def test_delta_psnr_is_that_of_the_fourth_step_computed_by_hand(world):
    black = heldout_of(np.zeros((60, 64, 64, 3), np.uint8), np.zeros(59))
    levels = same_parts(LevelWorld, world)
    report = delta_psnr(levels, black, SMALL, "real")
    assert [*map(len, levels.played)] == [12] * 8  # four true steps, then four random ones
    drawn = levels.played[-1].numpy()
    assert len(set(drawn.tolist())) > 2
    # Under the true action 0 the frame is black as it should be: 100 dB, the most there is.
    expected = 100 + 20 * np.log10(np.maximum(drawn, 255e-5) / 255)
    assert report["value"] == pytest.approx(expected.mean())
    assert report["stderr"] == pytest.approx(expected.std(ddof=1) / 12**0.5)
    assert report["true_psnr"]["value"] == 100


@pytest.mark.parametrize("source", ["real", "latent"])
def test_a_world_that_ignores_its_actions_scores_nothing(source, world, play):
    report = delta_psnr(same_parts(FrozenWorld, world), play, SMALL, source)
    assert (report["value"], report["stderr"]) == (0, 0)


@pytest.mark.parametrize("source", ["real", "latent"])
def test_a_world_that_heeds_its_actions_scores_more(source, world, play):
    report = delta_psnr(same_parts(MovingWorld, world), play, SMALL, source)
    assert report["value"] > 10
    # The field behind the paddle is not the painted one in these frames: all is equal.
    assert report["true_psnr"]["value"] == pytest.approx(100)


def test_latent_play_reaches_its_context_by_inferred_codes(world, play):
    moving = same_parts(MovingWorld, world)
    delta_psnr(moving, play, replace(SMALL, num_windows=1), "latent")
    source, actions = moving.seen_in_context
    assert source == "latent"
    [start] = np.random.default_rng(0).choice(play.windows.valid_starts(7), 1, replace=False)
    frames = torch.from_numpy(play.rows.frames[start : start + 3])[None]
    torch.testing.assert_close(actions, moving.infer_latent_actions(frames))


# --- what latent actions mean


def test_a_code_for_each_class_tells_all_there_is_to_know():
    report = correspondence(np.diag([50, 25, 25]))
    assert (report["consistency"], report["commonest"], report["count"]) == (1, 0.5, 100)
    # 1.5 bits, and each entropy corrected by (3 - 1) / (2 * 100) nats.
    expected = 1.5 + 0.01 / np.log(2)
    assert report["entropy_bits"] == pytest.approx(expected)
    assert report["mutual_information_bits"] == pytest.approx(expected)


def test_the_correction_takes_the_bias_from_independent_codes():
    rng = np.random.default_rng(0)
    draws = [count_pairs(*rng.integers(6, size=(2, 200)), (6, 6)) for _ in range(200)]
    found = np.array([correspondence(table)["mutual_information_bits"] for table in draws])
    # Uncorrected, the mean would be about 25 / (2 * 200 * ln 2) = 0.09 bits.
    assert abs(found.mean()) < 4 * found.std() / 200**0.5 + 0.005


def test_pairs_are_counted_and_a_code_without_labels_takes_the_commonest_class():
    table = count_pairs(np.array([0, 0, 0, 2]), np.array([1, 1, 0, 0]), (4, 3))
    np.testing.assert_array_equal(table[0], [1, 2, 0])
    assert table.sum() == 4
    np.testing.assert_array_equal(majority_map(table), [1, 0, 0, 0])


def test_use_of_codes_is_counted_by_hand():
    report = code_use(np.array([0, 0, 1, 1]), num_codes=4)
    assert report == {"usage": [0.5, 0.5, 0, 0], "perplexity": 2, "dead": 2}


def test_more_labels_make_a_better_map_and_numbers_the_recording_lacks_are_left_out():
    rng = np.random.default_rng(0)
    codes = rng.integers(6, size=1000)
    curve = label_curve(codes, codes, (6, 6), rng)
    assert list(curve) == [10, 30, 100, 300]
    assert curve[10]["value"] < 1
    assert curve[300] == {"value": 1, "stderr": 0, "count": 20}


class ShiftLam(nn.Module):
    """Adds ten levels a code, and one by mistake."""

    def predict(self, frames, codes):
        """Shift the frames."""
        return frames + (10 * codes + 1)[..., None, None, None] / 255


class ShiftWorld(World):
    """Names latent actions by grey levels."""

    def infer_latent_actions(self, frames):
        """Return how many times ten levels were added."""
        levels = frames[..., 0, 0, 0].long()
        return (levels[:, 1:] - levels[:, :-1]) // 10


def test_code_gain_and_gain_over_copying_are_computed_by_hand(world):
    steps = np.random.default_rng(0).integers(2, size=20)
    levels = np.append(0, 10 * np.cumsum(steps)).astype(np.uint8)
    heldout = heldout_of(np.tile(levels[:, None, None, None], (1, 64, 64, 3)), np.zeros(20))
    stack = copy.deepcopy(world.stack)
    stack.lam = ShiftLam()
    shifting = ShiftWorld(stack, world.starts, parts=world.parts, card=world.card)
    transitions = infer_transitions(shifting, heldout, SMALL)
    report = heeding(shifting, heldout, transitions, SMALL)
    codes = transitions.codes[:, -1]
    shuffled = codes[np.random.default_rng(0).permutation(len(codes))]
    expected = np.square(10 * (shuffled - codes) + 1).mean()
    assert report["code_gain"]["value"] == pytest.approx(expected, rel=1e-4)
    assert report["mse"]["value"] == pytest.approx(255**-2, rel=1e-3)
    # Where anything changes, by ten levels, the guess is off by one: 20 dB better than a copy.
    assert report["gain_over_copy"]["value"] == pytest.approx(20, abs=0.01)
    assert report["gain_over_copy"]["count"] == (codes == 1).sum()


def test_codes_that_say_where_the_paddle_goes_agree_with_it_in_play_and_in_latent_mode(world, play):
    report = latent_actions(same_parts(MovingWorld, world), play, replace(SMALL, num_windows=9))
    assert report["against_truth"]["move"]["consistency"] == 1
    # At the field's ends the paddle stays, whatever the command.
    assert 0.5 < report["against_truth"]["command"]["consistency"] < 1
    assert report["labels_needed"]["move"][100]["value"] == 1
    assert set(report["labels_needed"]) == {"action", "command", "move"}
    latent = report["latent_mode"]
    assert (latent["value"], latent["balanced"]["value"], latent["in_play"]["value"]) == (1, 1, 1)
    assert [latent["by_code"][code]["way"] for code in range(3)] == ["up", "still", "down"]


def test_a_latent_mode_that_does_not_move_the_paddle_agrees_on_still_alone(world, play):
    report = latent_actions(same_parts(FrozenWorld, world), play, replace(SMALL, num_windows=9))
    assert report["latent_mode"]["value"] == pytest.approx(1 / 3)
    assert report["latent_mode"]["by_code"][1]["value"] == 1
    assert report["latent_mode"]["by_code"][0]["way"] == "up"
    assert report["latent_mode"]["by_code"][0]["went"] == {"up": 0, "still": 1, "down": 0}


def test_groups_weigh_alike_and_an_empty_one_counts_nothing():
    values, groups = np.array([True, True, True, False]), np.array([0, 0, 0, 1])
    assert even_mean(values, groups, np.arange(2))["value"] == 0.5
    assert even_mean(values, groups, np.arange(4)) == {"value": 0.25, "stderr": 0, "count": 4}


# --- the section


def test_the_section_of_a_trained_world_has_every_figure_and_one_seed_gives_one_report(world, play):
    first, second = (control(world, play, replace(SMALL, num_windows=4)) for _ in range(2))
    assert first == second
    assert set(first) == {"delta_psnr", "paddle_obeys", "latent_actions"}
    assert len(first["latent_actions"]["usage"]) == world.num_latent_actions
    gain = first["latent_actions"]["code_gain"]
    mse, shuffled = (first["latent_actions"][name]["value"] for name in ("mse", "shuffled_mse"))
    assert gain["value"] == pytest.approx(shuffled / mse)


def test_each_figure_that_a_world_cannot_give_says_why(world, play):
    parts = frozenset({"tokenizer", "dynamics", "reward"})
    report = control(same_parts(MovingWorld, world, parts), play, SMALL)
    reason = "the world has no trained ['lam']: genie-gym train --stage ..., then export"
    assert report["delta_psnr"]["latent"] == {"value": None, "reason": reason}
    assert report["latent_actions"] == {"value": None, "reason": reason}
    assert report["paddle_obeys"]["value"] == 1

    report = control(same_parts(World, world, frozenset({"tokenizer", "lam"})), play, SMALL)
    assert "no trained ['dynamics', 'reward']" in report["delta_psnr"]["real"]["reason"]
    assert "no trained ['dynamics', 'reward']" in report["paddle_obeys"]["reason"]
    assert "no trained" in report["latent_actions"]["latent_mode"]["reason"]
    assert report["latent_actions"]["code_gain"]["value"] > 0


def test_a_recording_too_short_for_one_figure_still_gives_the_others(world):
    short = heldout_of(paint([30, 36, 36, 42]), [3, 0, 5])
    report = control(same_parts(MovingWorld, world), short, SMALL)
    assert "windows of 7 frames do not fit" in report["delta_psnr"]["real"]["reason"]
    assert "windows of 6 frames do not fit" in report["paddle_obeys"]["reason"]
    assert "needs 200 labels" in report["latent_actions"]["latent_mode"]["reason"]


def test_a_game_without_a_known_paddle_has_the_other_figures(world, play):
    other = same_parts(World, world)
    other.config = replace(world.config, game="Breakout")
    report = control(other, play, SMALL)
    assert "found in Pong" in report["paddle_obeys"]["reason"]
    assert "found in Pong" in report["latent_actions"]["latent_mode"]["reason"]
    assert set(report["latent_actions"]["against_truth"]) == {"action"}
