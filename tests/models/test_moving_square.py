"""Every part, trained on the moving square, against the rules of the square."""

from dataclasses import replace

import torch

from genie_gym.data.batch import to_float


def test_the_rules_are_those_of_the_page(moving_square):
    places = torch.tensor([[0, 0], [0, 0], [3, 3], [3, 6], [1, 0]])
    reached, rewards, ends = moving_square.move(places, torch.tensor([0, 1, 2, 3, 0]))
    assert reached.tolist() == [[0, 0], [1, 0], [3, 2], [3, 6], [0, 0]]
    assert rewards.tolist() == [1, 0, 0, 1, 0]
    assert ends.tolist() == [True, False, False, False, True]
    frame = moving_square.draw(torch.tensor([1, 2]))
    assert frame.shape == (16, 16, 3)
    assert (frame == 255).nonzero().amin(0).tolist() == [2, 4, 0]
    assert (frame == 255).nonzero().amax(0).tolist() == [5, 7, 2]


def test_the_tokenizer_rebuilds_every_frame(moving_square, square_tokenizer):
    frames = moving_square.draw(moving_square.all_places())[:, None]
    decoded = square_tokenizer.decode(square_tokenizer.encode(to_float(frames)))
    assert (decoded - to_float(frames)).square().mean() < 1e-4
    # No pixel is wrong, either.
    assert torch.equal(decoded.round(), to_float(frames))


def test_the_tokenizer_gives_every_frame_tokens_of_its_own(moving_square, square_tokenizer):
    frames = moving_square.draw(moving_square.all_places())[:, None]
    tokens = square_tokenizer.encode(to_float(frames))[:, 0]
    assert len(tokens.unique(dim=0)) == 49


def agreement(lam, square):
    """Return how often a code's commonest move was made, where a move changes something."""
    places, actions = square.all_transitions()
    batch, way = square.play(places, actions[:, None])
    codes = lam.infer(to_float(batch.frames))[:, 0]
    is_moved = (way[:, 0] != way[:, 1]).any(-1)
    ones = torch.ones(int(is_moved.sum()))
    table = torch.zeros(square.num_actions, lam.config.quantizer.num_codes)
    table.index_put_((actions[is_moved], codes[is_moved]), ones, accumulate=True)
    assert set(table.argmax(0)[table.sum(0) > 0].tolist()) == set(range(square.num_actions))
    return (table.amax(0).sum() / table.sum()).item()


def test_latent_actions_are_the_moves_up_to_renaming(half_square, square_lam):
    assert agreement(square_lam, half_square) >= 0.95


def test_the_latent_decoder_heeds_its_code(half_square, square_lam):
    batch = half_square.clips(256, 3, torch.Generator().manual_seed(7))
    _, metrics = square_lam(batch)
    assert metrics["code_gain"] > 1.5
    assert metrics["mse"] < metrics["copy_mse"]


def test_the_dynamics_predict_the_one_right_frame_from_places_no_training_clip_began_in(
    moving_square, square_dynamics, square_clips, training_places
):
    held_out = moving_square.all_places()[::5]
    assert not (held_out[:, None] == training_places).all(-1).any()
    batch = square_clips(500, 8, held_out, torch.Generator().manual_seed(8))
    targets = batch.tokens[:, 1:]
    hidden = torch.ones_like(targets, dtype=torch.bool)
    for rows in (
        square_dynamics.real_action_rows(batch.actions),
        square_dynamics.latent_action_rows(batch.latent_actions),
    ):
        rows = torch.nn.functional.pad(rows, (1, 0), value=0)
        logits = square_dynamics.two_stream_logits(batch.tokens[:, :-1], targets, hidden, rows)
        assert torch.equal(logits.argmax(-1), targets)


def test_actions_shifted_by_one_make_the_dynamics_wrong(square_dynamics, square_clips):
    batch = square_clips(500, 8, generator=torch.Generator().manual_seed(9))
    shifted = replace(
        batch, actions=batch.actions.roll(1, 1), latent_actions=batch.latent_actions.roll(1, 1)
    )
    _, right = square_dynamics(batch)
    _, wrong = square_dynamics(shifted)
    assert right["changed_accuracy"] > 0.999
    # Three moves of four are the wrong ones; tokens that both agree on are still right.
    assert wrong["changed_accuracy"] < 0.6


def test_the_reward_model_is_exact_on_every_transition(moving_square, square_reward, square_clips):
    batch = square_clips(500, 6, generator=torch.Generator().manual_seed(10))
    _, metrics = square_reward(batch)
    assert metrics["recall_0"] == metrics["recall_1"] == 1


def test_the_world_plays_by_the_rules(moving_square, square_world):
    # Every start, twelve random moves: pixels, expected rewards and ends, step by step.
    generator = torch.Generator().manual_seed(12)
    places = moving_square.all_places()
    state = square_world.start(torch.arange(len(places)))
    for _ in range(12):
        actions = torch.randint(4, (len(places),), generator=generator)
        state, reward, terminated_prob = square_world.step(state, actions)
        places, expected_reward, ends = moving_square.move(places, actions)
        difference = square_world.decode(state).int() - moving_square.draw(places).int()
        assert difference.abs().max() <= 0.05 * 255
        assert (reward - expected_reward).abs().max() < 0.1
        assert torch.equal(terminated_prob > 0.5, ends)


def test_the_world_plays_by_the_rules_when_it_is_sampled(moving_square, square_world):
    generator = torch.Generator().manual_seed(13)
    places = moving_square.all_places()
    state = square_world.start(torch.arange(len(places)))
    for _ in range(6):
        actions = torch.randint(4, (len(places),), generator=generator)
        state, _, _ = square_world.step(state, actions, generator, temperature=0.5)
        places, _, _ = moving_square.move(places, actions)
        assert torch.equal(
            square_world.decode(state).float().div(255).round(),
            to_float(moving_square.draw(places)),
        )


def test_latent_actions_drive_the_same_world(moving_square, square_world):
    places, actions = moving_square.all_transitions()
    state = square_world.start(places[:, 0] * moving_square.num_columns + places[:, 1])
    by_real, _, _ = square_world.step(state, actions)
    by_latent, _, _ = square_world.step(state, (actions + 1) % 4, source="latent")
    assert torch.equal(by_real.tokens, by_latent.tokens)
