from dataclasses import replace

import pytest
import torch

from genie_gym.data.batch import Batch
from genie_gym.errors import ConfigError
from genie_gym.models.dynamics import Dynamics, DynamicsConfig
from genie_gym.nn.transformer import TransformerConfig

NUM_CODES, ROWS, COLUMNS, NUM_ACTIONS, NUM_LATENT = 24, 2, 4, 4, 5
S = ROWS * COLUMNS
WINDOW = 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


CODEBOOK = torch.randn(NUM_CODES, 4, generator=seeded(9))


def dynamics(num_layers=1, **changes):
    transformer = TransformerConfig(
        num_layers=num_layers, dim=24, num_heads=3, head_dim=8, temporal_window=WINDOW
    )
    torch.manual_seed(0)
    module = Dynamics(
        DynamicsConfig(transformer=transformer, **changes),
        codebook=CODEBOOK,
        rows=ROWS,
        columns=COLUMNS,
        num_actions=NUM_ACTIONS,
        num_latent_actions=NUM_LATENT,
        generator=seeded(),
    )
    # Untrained tables are nearly equal rows; apart, every leak shows.
    with torch.no_grad():
        module.code_offset.normal_(generator=seeded(1))
        module.mask_token.normal_(generator=seeded(2))
    return module.eval().requires_grad_(False)


def tokens(*shape, seed=0):
    return torch.randint(NUM_CODES, (*shape, S), generator=seeded(seed))


def token_batch(batch_size=4, num_frames=7, seed=0):
    shape = (batch_size, num_frames - 1)
    return Batch(
        tokens=tokens(batch_size, num_frames, seed=seed),
        actions=torch.randint(NUM_ACTIONS, shape, generator=seeded(seed + 1)),
        latent_actions=torch.randint(NUM_LATENT, shape, generator=seeded(seed + 2)),
    )


def streams(module, batch, hidden_rate=0.5):
    """Return the arguments of `two_stream_logits` for a batch driven by real actions."""
    targets = batch.tokens[:, 1:]
    hidden = torch.rand(targets.shape, generator=seeded(5)) < hidden_rate
    rows = torch.nn.functional.pad(module.real_action_rows(batch.actions), (1, 0), value=0)
    return {"past": batch.tokens[:, :-1], "targets": targets, "hidden": hidden, "actions": rows}


def moved_targets(module, arguments, name, edit):
    """Return which target frames an edit of one argument moves."""
    before = module.two_stream_logits(**arguments)
    after = module.two_stream_logits(**{**arguments, name: edit(arguments[name].clone())})
    return (before != after).flatten(2).any(-1).any(0).tolist()


KINDS = pytest.mark.parametrize(
    "kind",
    [
        {"action_injection": "add"},
        {"action_injection": "prepend"},
        {"action_injection": "add", "group_size": 2},
        {"action_injection": "prepend", "group_size": 2},
    ],
    ids=["add", "prepend", "add-groups", "prepend-groups"],
)


@pytest.mark.parametrize("edited", range(6))
@KINDS
def test_logits_see_whole_frames_before_them_within_the_window_and_no_others(kind, edited):
    module = dynamics(**kind)
    arguments = streams(module, token_batch())

    def edit(past):
        past[:, edited] = (past[:, edited] + 1) % NUM_CODES
        return past

    # Target t stands for frame t + 1, which looks at itself and WINDOW - 1 frames before it.
    expected = [edited <= target < edited + WINDOW - 1 for target in range(6)]
    assert moved_targets(module, arguments, "past", edit) == expected


@pytest.mark.parametrize("num_layers", [1, 3])
@KINDS
def test_an_edited_past_frame_moves_no_earlier_target_however_deep_the_network(kind, num_layers):
    module = dynamics(num_layers, **kind)
    arguments = streams(module, token_batch())

    def edit(past):
        past[:, 3] = (past[:, 3] + 1) % NUM_CODES
        return past

    moved = moved_targets(module, arguments, "past", edit)
    assert moved[:3] == [False, False, False]
    assert moved[3]


@KINDS
def test_only_revealed_tokens_of_a_target_frame_are_looked_at_and_by_that_frame_alone(kind):
    module = dynamics(2, **kind)
    arguments = streams(module, token_batch())
    hidden = arguments["hidden"]

    def edit_hidden(targets):
        return torch.where(hidden, (targets + 1) % NUM_CODES, targets)

    assert not any(moved_targets(module, arguments, "targets", edit_hidden))

    def edit_one_revealed(targets):
        row, place = (~hidden[:, 2]).nonzero()[0]
        targets[row, 2, place] = (targets[row, 2, place] + 1) % NUM_CODES
        return targets

    moved = moved_targets(module, arguments, "targets", edit_one_revealed)
    assert moved == [False, False, True, False, False, False]


@pytest.mark.parametrize("edited", range(7))
@KINDS
def test_an_action_moves_the_frame_it_led_to_and_later_ones_alone(kind, edited):
    module = dynamics(**kind)
    arguments = streams(module, token_batch())

    def edit(rows):
        rows[:, edited] = NUM_ACTIONS + 1 - rows[:, edited] // 2
        return rows

    # `actions[t]` led to frame t, which is target t - 1; as a past frame it carries its action on.
    expected = [edited - 1 <= target < edited + WINDOW - 1 for target in range(6)]
    assert moved_targets(module, arguments, "actions", edit) == expected


def test_targets_survive_masking_and_corruption():
    module = dynamics(max_corruption=1.0).train()
    batch = token_batch()
    kept = batch.tokens.clone(), batch.actions.clone(), batch.latent_actions.clone()
    module(batch)
    for before, now in zip(kept, (batch.tokens, batch.actions, batch.latent_actions), strict=True):
        assert torch.equal(before, now)


def test_the_loss_is_the_cross_entropy_of_the_original_targets():
    module = dynamics(nearness=0.0, min_mask_rate=1.0, max_corruption=0.5, latent_prob=0.0)
    # Every token changes at every step, so all of them count, and alike.
    steps = torch.randint(1, NUM_CODES, (4, 7, S), generator=seeded())
    batch = replace(token_batch(), tokens=steps.cumsum(1) % NUM_CODES)
    logits = module.two_stream_logits(**streams(module, batch, hidden_rate=2.0))
    targets = batch.tokens[:, 1:]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 2), targets.flatten())
    loss, metrics = module(batch)
    assert torch.allclose(loss, expected)
    assert metrics["changed_cross_entropy"] == pytest.approx(expected.item(), rel=1e-5)
    is_right = (logits.argmax(-1) == targets).float().mean().item()
    assert metrics["changed_accuracy"] == pytest.approx(is_right)
    assert metrics["accuracy"] == pytest.approx(is_right)


def test_near_codes_are_those_at_the_smallest_distance_the_code_itself_first():
    module = dynamics(num_near_codes=3)
    distances = torch.cdist(CODEBOOK, CODEBOOK)
    assert torch.equal(module.near_codes, distances.argsort(-1)[:, :3])
    assert torch.equal(module.near_codes[:, 0], torch.arange(NUM_CODES))


def test_before_training_a_token_most_likely_stays_as_it_was():
    module = dynamics()
    with torch.no_grad():
        module.code_offset.mul_(0.02)
    arguments = streams(module, token_batch(), hidden_rate=2.0)
    probs = module.two_stream_logits(**arguments).softmax(-1)
    stays = probs.gather(-1, arguments["past"][..., None])
    assert 0.9 < stays.mean() < 0.99  # odds of 20 to 1, up to the noise of untrained weights


def rehearsed(module, seed=0):
    batch = token_batch(batch_size=32)
    arguments = streams(module, batch, hidden_rate=2.0)
    module.generator.manual_seed(seed)
    return arguments, module._rehearse(**arguments)


def test_rehearsed_clips_hold_the_guesses_of_the_network_for_some_past_frames():
    module = dynamics(rehearsal_share=0.5)
    arguments, (past, _) = rehearsed(module)
    guesses = module.two_stream_logits(**arguments).argmax(-1)[:16, :-1]
    is_real = (past == arguments["past"]).all(-1)
    assert is_real[16:].all()
    assert is_real[:, 0].all()
    is_guess = (past[:16, 1:] == guesses).all(-1)
    assert (is_real[:16, 1:] | is_guess).all()
    # Rates uniform in [0, 1] over 16 clips of 5 frames: 0.5, straying by about 0.1.
    assert 0.2 < (is_guess & ~is_real[:16, 1:]).float().mean() < 0.8


def test_in_rehearsed_clips_what_the_network_is_sure_of_is_revealed():
    module = dynamics(rehearsal_share=1.0, sure_prob=0.95)
    arguments, (_, hidden) = rehearsed(module)
    probs = module.two_stream_logits(**arguments).softmax(-1).amax(-1)
    assert hidden.any(-1).all()
    is_least_sure = probs == probs.amin(-1, keepdim=True)
    assert not (hidden & (probs >= 0.95) & ~is_least_sure).any()
    assert (hidden & (probs < 0.95) & ~is_least_sure).any()
    assert (~hidden & (probs < 0.95)).any()


def test_only_training_rehearses_and_spoils_the_past():
    batch = token_batch()
    changes = {"min_mask_rate": 1.0, "latent_prob": 0.0, "nearness": 0.0, "change_weight": 0.0}
    plain = dynamics(**changes, max_corruption=0.0)
    module = dynamics(**changes, max_corruption=1.0, rehearsal_share=1.0)
    assert torch.equal(module(batch)[0], plain(batch)[0])
    assert not torch.equal(module.train()(batch)[0], plain.train()(batch)[0])


def test_rows_of_real_and_latent_actions_never_overlap():
    module = dynamics()
    real = module.real_action_rows(torch.arange(NUM_ACTIONS)).tolist()
    latent = module.latent_action_rows(torch.arange(NUM_LATENT)).tolist()
    unknown = torch.tensor([-1])
    assert module.real_action_rows(unknown).tolist() == [0]
    assert module.latent_action_rows(unknown).tolist() == [0]
    assert sorted([0, *real, *latent]) == list(range(1 + NUM_ACTIONS + NUM_LATENT))
    assert module.embed_action.num_embeddings == 1 + NUM_ACTIONS + NUM_LATENT


@pytest.mark.parametrize(("latent_prob", "is_latent"), [(0.0, False), (1.0, True)])
def test_a_clip_is_driven_by_one_kind_of_action(latent_prob, is_latent):
    module = dynamics(latent_prob=latent_prob)
    batch = token_batch()
    rows = module._draw_actions(batch)
    latent = module.latent_action_rows(batch.latent_actions)
    expected = latent if is_latent else module.real_action_rows(batch.actions)
    assert torch.equal(rows[:, 1:], expected)
    assert (rows[:, 0] == 0).all()


def test_clips_go_on_with_latent_actions_from_anywhere_and_never_back():
    module, batch = dynamics(latent_prob=0.5), token_batch(batch_size=400, num_frames=9)
    rows = module._draw_actions(batch)[:, 1:]
    is_latent = rows == module.latent_action_rows(batch.latent_actions)
    assert torch.equal(rows == module.real_action_rows(batch.actions), ~is_latent)
    assert (is_latent[:, 1:] >= is_latent[:, :-1]).all()
    # About half of all clips meet latent actions, half of those from the first step on.
    assert 150 < is_latent[:, -1].sum() < 250
    assert 70 < is_latent[:, 0].sum() < 130
    assert set(is_latent.sum(1).tolist()) == set(range(9))


@KINDS
def test_every_parameter_learns(kind):
    module = dynamics(2, **kind, latent_prob=0.5)
    module.train().requires_grad_(True)
    loss, _ = module(token_batch(batch_size=16))
    loss.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    # Every row of the action table: no action before the first frame, real ones, latent ones.
    assert (module.embed_action.weight.grad.abs().amax(-1) > 0).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"min_mask_rate": 1.5}, r"dynamics\.min_mask_rate must lie in \[0, 1\], got 1\.5"),
        ({"latent_prob": -0.1}, r"dynamics\.latent_prob must lie in \[0, 1\], got -0\.1"),
        ({"num_maskgit_steps": 0}, "num_maskgit_steps and num_near_codes must be at least 1"),
        (
            {"transformer": TransformerConfig(temporal_window=1)},
            "temporal_window must be at least 2 .* got 1",
        ),
    ],
)
def test_settings_out_of_range_are_refused(change, text):
    with pytest.raises(ConfigError, match=text):
        DynamicsConfig(**change)
