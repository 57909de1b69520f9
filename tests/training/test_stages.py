import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from genie_gym.errors import ConfigError, DataError
from genie_gym.models.action_map import ActionMap, ActionMapConfig
from genie_gym.models.reward import RewardConfig, RewardModel, class_shares
from genie_gym.models.sampling import FrameSampler
from genie_gym.models.stack import GenieStack
from genie_gym.nn.transformer import TransformerConfig
from genie_gym.training.action_stages import ActionMapStage, LatentActionStage
from genie_gym.training.config import RunConfig, StageConfig, TrainingConfig
from genie_gym.training.data import TokenRows, Windows
from genie_gym.training.stages import (
    ClipStage,
    DynamicsStage,
    RewardStage,
    imagine_some,
    known_action_rows,
    play_on,
)

CLIP_LENGTH, BATCH_SIZE = 4, 12


@pytest.fixture(scope="module")
def stack(config):
    torch.manual_seed(0)
    config = replace(config.stack, reward=replace(config.stack.reward, event_share=0.5))
    return GenieStack(config, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def token_windows(data):
    rng = np.random.default_rng(0)
    count = len(data.rows.frames)
    tokens = rng.integers(128, size=(count, 16)).astype(np.int32)
    return Windows(data, CLIP_LENGTH, TokenRows(tokens, np.zeros(count, np.int32)))


@pytest.fixture(scope="module")
def reward_stage(stack, token_windows):
    config = StageConfig(batch_size=BATCH_SIZE, clip_length=CLIP_LENGTH)
    return RewardStage(stack.reward, token_windows, config, seed=0, dynamics=stack.dynamics)


def rows_of(starts):
    return starts[:, None] + np.arange(CLIP_LENGTH)


def test_training_and_validation_clips_come_from_their_own_episodes(
    stack, token_windows, reward_stage
):
    config = StageConfig(batch_size=BATCH_SIZE, clip_length=CLIP_LENGTH)
    evenly = ClipStage("dynamics", stack.dynamics, token_windows, config, seed=0)
    for stage in (evenly, reward_stage):
        for step in range(200):
            for is_validation in (False, True):
                rng = np.random.default_rng([0, step])
                starts = stage.draw_starts(rng, is_validation=is_validation)
                assert (token_windows.data.is_validation[rows_of(starts)] == is_validation).all()


def test_a_batch_depends_on_the_seed_and_the_step_alone(stack, token_windows):
    config = StageConfig(batch_size=BATCH_SIZE, clip_length=CLIP_LENGTH)
    stages = [
        ClipStage("dynamics", stack.dynamics, token_windows, config, seed=seed)
        for seed in (0, 0, 1)
    ]
    stages[0].batch_at(3)
    first, second, other = (stage.batch_at(7).tokens for stage in stages)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert not torch.equal(first, stages[0].batch_at(8).tokens)


def test_validation_of_the_dynamics_also_rolls_out(stack, token_windows):
    config = StageConfig(batch_size=BATCH_SIZE, clip_length=CLIP_LENGTH)
    plain = ClipStage("dynamics", stack.dynamics, token_windows, config, seed=0)
    stage = DynamicsStage(stack.dynamics, token_windows, config, seed=0)
    stack.dynamics.eval()
    stack.dynamics.generator.manual_seed(0)
    expected = plain.validate()
    stack.dynamics.generator.manual_seed(0)
    metrics = stage.validate()
    assert metrics.items() >= expected.items()
    assert metrics.keys() - expected.keys() == {"forced_error", "free_error", "free_steps"}
    assert metrics["free_steps"] == CLIP_LENGTH / 2


def test_half_of_the_reward_clips_hold_an_event(reward_stage, token_windows):
    rows = token_windows.data.rows
    is_event = (rows.rewards != 0) | rows.terminations
    for step in range(50):
        starts = reward_stage.draw_starts(np.random.default_rng(step), is_validation=False)
        assert len(starts) == BATCH_SIZE
        held = is_event[rows_of(starts)[:, :-1]].any(axis=1)
        assert held[: BATCH_SIZE // 2].all()


def test_the_dynamics_learns_from_as_many_events_as_it_asks_for(stack, token_windows):
    rows = token_windows.data.rows
    is_event = (rows.rewards != 0) | rows.terminations
    config = StageConfig(batch_size=BATCH_SIZE, clip_length=CLIP_LENGTH)
    dynamics = copy.copy(stack.dynamics)
    dynamics.config = replace(dynamics.config, event_share=0.25)
    stage = DynamicsStage(dynamics, token_windows, config, seed=0)
    num_held = []
    for step in range(50):
        starts = stage.draw_starts(np.random.default_rng(step), is_validation=False)
        num_held.append(is_event[rows_of(starts)[:, :-1]].any(axis=1).sum())
        rng, same = np.random.default_rng(step), np.random.default_rng(step)
        even = ClipStage.draw_starts(stage, rng, is_validation=True)
        assert (stage.draw_starts(same, is_validation=True) == even).all()
    assert min(num_held) == BATCH_SIZE // 4


def test_kinds_of_events_are_shown_in_turn(reward_stage, token_windows):
    rewards = token_windows.data.rows.rewards
    kinds = reward_stage.training_events
    assert {-1.0} in [set(np.unique(rewards[kind])) for kind in kinds]
    for kind in kinds:
        assert not token_windows.data.is_validation[kind].any()
    for step in range(20):
        starts = reward_stage.draw_starts(np.random.default_rng(step), is_validation=False)
        for index, steps in enumerate(rows_of(starts[: BATCH_SIZE // 2])[:, :-1]):
            assert np.isin(steps, kinds[index // 2 % len(kinds)]).any()


def test_the_correction_is_the_ratio_of_recorded_to_shown_shares(reward_stage, token_windows):
    rewards = torch.from_numpy(token_windows.data.rows.rewards)
    model = reward_stage.reward_model
    recorded = class_shares(model.nearest_class(rewards), 3)
    shown_share = recorded / model.reward_correction.exp()
    assert shown_share.sum().item() == pytest.approx(1, abs=1e-3)
    # Points lost are rare in the recording, and about one in twelve of what is shown.
    assert recorded[0] < 0.05 < shown_share[0]


def reward_model(classes=(-1.0, 0.0, 1.0)):
    shape = TransformerConfig(num_layers=1, dim=8, num_heads=1, head_dim=8, temporal_window=2)
    model = RewardModel(
        RewardConfig(transformer=shape, reward_classes=classes),
        codebook=torch.randn(4, 2, generator=torch.Generator().manual_seed(0)),
        rows=1,
        columns=2,
        num_actions=3,
        generator=torch.Generator().manual_seed(0),
    )
    return model.eval()


@torch.no_grad()
def predict(model, reward_probs, end_prob):
    """Return what the model says after it has learned these chances from what it was shown."""
    model.to_reward.weight.zero_()
    model.to_end.weight.zero_()
    model.to_reward.bias.copy_(torch.tensor(reward_probs).log())
    model.to_end.bias.copy_(torch.tensor([1 - end_prob, end_prob]).log())
    tokens, actions = torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    return model.step(tokens, tokens, actions, model.empty_cache(1), model.code_embeddings())[0]


def test_a_model_that_knows_nothing_but_the_shown_shares_expects_the_recorded_reward():
    model = reward_model()
    shown, recorded = torch.tensor([0.3, 0.4, 0.3]), torch.tensor([0.02, 0.97, 0.01])
    model.correct_for(
        trained=(shown, torch.tensor([0.8, 0.2])), recorded=(recorded, torch.tensor([0.999, 0.001]))
    )
    prediction = predict(model, shown.tolist(), 0.2)
    torch.testing.assert_close(prediction.reward_probs[0], recorded)
    expected = (prediction.reward_probs * model.classes).sum().item()
    assert expected == pytest.approx(-0.01, abs=1e-6)
    assert prediction.terminated_prob.item() == pytest.approx(0.001, rel=1e-4)


def test_the_correction_turns_the_shown_posterior_into_the_recorded_one():
    likelihood = torch.tensor([0.9, 0.1, 0.5])  # of what is seen, under each class
    shown, recorded = torch.tensor([0.4, 0.3, 0.3]), torch.tensor([0.05, 0.9, 0.05])
    posterior = shown * likelihood / (shown * likelihood).sum()
    model = reward_model()
    ends = torch.tensor([0.5, 0.5])
    model.correct_for(trained=(shown, ends), recorded=(recorded, ends))
    prediction = predict(model, posterior.tolist(), 0.5)
    bayes = recorded * likelihood / (recorded * likelihood).sum()
    torch.testing.assert_close(prediction.reward_probs[0], bayes)


def test_without_the_correction_the_expected_reward_would_be_biased():
    prediction = predict(reward_model(), [0.3, 0.4, 0.3], 0.2)
    assert prediction.terminated_prob.item() == pytest.approx(0.2)


def test_a_class_that_never_occurs_stays_improbable_and_finite():
    model = reward_model()
    shown, recorded = torch.tensor([0.0, 0.5, 0.5]), torch.tensor([0.0, 1.0, 0.0])
    ends = torch.tensor([1.0, 0.0])
    model.correct_for(trained=(shown, ends), recorded=(recorded, ends))
    prediction = predict(model, [1e-6, 0.5, 0.5], 1e-6)
    assert prediction.reward_probs.isfinite().all()
    assert prediction.reward_probs[0, 2] < 1e-5


def test_every_second_clip_is_imagined_from_its_middle_on(stack, token_windows):
    sampler = FrameSampler(stack.dynamics.eval())
    real = token_windows.clips(token_windows.training_starts[:BATCH_SIZE])
    imagined = imagine_some(real, sampler, torch.Generator().manual_seed(0))
    is_changed = real.tokens != imagined.tokens
    assert not is_changed[1::2].any() and not is_changed[:, : CLIP_LENGTH // 2].any()
    assert is_changed[::2, CLIP_LENGTH // 2].any()
    assert torch.equal(real.actions, imagined.actions)


def test_imagined_frames_follow_from_imagined_ones_and_their_actions(stack, token_windows):
    sampler = FrameSampler(stack.dynamics.eval())
    clips = token_windows.clips(token_windows.training_starts[:4])
    rows = known_action_rows(clips, stack.dynamics)
    options = {"num_steps": 2, "temperature": 0.0, "generator": None}
    played = play_on(clips.tokens, rows, sampler, 2, **options)
    # What was recorded after the real part plays no role, what was imagined does.
    other = clips.tokens.clone()
    other[:, 2:] = 0
    assert torch.equal(play_on(other, rows, sampler, 2, **options), played)
    assert torch.equal(play_on(played, rows, sampler, 3, **options), played)


def test_a_dynamics_of_latent_actions_alone_is_driven_by_them(stack, token_windows):
    batch = token_windows.clips(token_windows.training_starts[:BATCH_SIZE])
    batch = replace(batch, latent_actions=torch.ones_like(batch.actions))
    dynamics = stack.dynamics
    first = torch.zeros(BATCH_SIZE, 1, dtype=torch.int64)
    real = torch.cat([first, dynamics.real_action_rows(batch.actions)], dim=1)
    assert torch.equal(known_action_rows(batch, dynamics), real)
    latent = torch.cat([first, dynamics.latent_action_rows(batch.latent_actions)], dim=1)
    known, dynamics.config = dynamics.config, replace(dynamics.config, latent_prob=1.0)
    assert torch.equal(known_action_rows(batch, dynamics), latent)
    dynamics.config = known


@pytest.fixture(scope="module")
def transitions(data):
    """Windows of one transition each; a row's latent action is that row's number."""
    count = len(data.rows.frames)
    tokens = np.zeros((count, 16), np.int32)
    return Windows(data, 2, TokenRows(tokens, np.arange(count, dtype=np.int32)))


def action_map_stage(transitions, num_labels, seed=0):
    module = ActionMap(ActionMapConfig(num_labels=num_labels), num_actions=6, num_codes=4)
    config = StageConfig(batch_size=BATCH_SIZE, clip_length=2)
    return ActionMapStage(module, transitions, config, seed=seed)


def test_an_action_map_is_shown_its_labels_and_no_other_transition(transitions):
    def shown(stage):
        batches = [stage.batch_at(step) for step in range(40)]
        return set(torch.cat([batch.latent_actions for batch in batches]).flatten().tolist())

    rows = shown(action_map_stage(transitions, 7))
    assert len(rows) == 7 and not transitions.data.is_validation[list(rows)].any()
    assert rows == shown(action_map_stage(transitions, 7))
    assert rows != shown(action_map_stage(transitions, 7, seed=1))
    judged = action_map_stage(transitions, 7).validation_batch(0).latent_actions.flatten()
    assert transitions.data.is_validation[judged.numpy()].all()


def test_more_labels_than_transitions_are_refused(transitions):
    most = len(transitions.training_starts)
    assert len(action_map_stage(transitions, most).labelled) == most
    text = rf"action_map\.num_labels is {most + 1}, but the training episodes hold {most} clips"
    with pytest.raises(DataError, match=text):
        action_map_stage(transitions, most + 1)


def test_a_label_is_one_transition():
    with pytest.raises(ConfigError, match=r"action_map\.clip_length must stay 2 frames.*got 3"):
        TrainingConfig(action_map=StageConfig(clip_length=3))


def latent_action_stage(config, data, num_labels):
    weight = float(num_labels > 0)
    lam = replace(config.stack.lam, supervision_weight=weight, num_labels=num_labels)
    generator = torch.Generator().manual_seed(0)
    stack = GenieStack(replace(config.stack, lam=lam), generator=generator)
    settings = StageConfig(batch_size=BATCH_SIZE, clip_length=CLIP_LENGTH)
    return LatentActionStage(stack.lam, Windows(data, CLIP_LENGTH), settings, seed=0)


def test_no_more_transitions_than_asked_for_tell_their_action(config, data):
    for step in range(5):
        assert (latent_action_stage(config, data, 0).batch_at(step).actions == -1).all()
    stage = latent_action_stage(config, data, 3)
    told = [stage.batch_at(step).actions >= 0 for step in range(20)]
    # A quarter of the clips are laid around a labelled transition.
    assert all(is_told[: BATCH_SIZE // 4].any(1).all() for is_told in told)
    assert len(stage.labelled) == 3 and not data.is_validation[stage.labelled].any()
    assert (stage.validation_batch(0).actions >= 0).all()


def test_labels_and_skipped_frames_exclude_each_other(config):
    lam = replace(config.stack.lam, supervision_weight=1.0, num_labels=10)
    augment = replace(config.training.lam.augment, max_stride=2)
    training = replace(config.training, lam=replace(config.training.lam, augment=augment))
    with pytest.raises(ConfigError, match=r"max_stride must stay 1 where stack\.lam\.num_labels"):
        RunConfig(stack=replace(config.stack, lam=lam), training=training)
