import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from genie_gym.errors import DeviceError, WorldError
from genie_gym.models.bundle import (
    choose_device,
    find_bundle,
    load_world,
    packaged_worlds,
    read_card,
    save_bundle,
    update_figures,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def save(world, folder, **card):
    save_bundle(folder, stack=world.stack, starts=world.starts, parts=world.parts, card={**card})


@pytest.fixture(scope="session")
def saved(untrained_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save(untrained_world, folder, recording="made up", figures={"psnr": 12.5})
    return folder


@pytest.fixture
def bundle(saved, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(saved, tmp_path / "bundle")


def play(world):
    """Return everything a world answers over a few sampled steps."""
    answers = []
    state = world.start(torch.tensor([0, 3, 6]))
    for step in range(4):
        actions = torch.tensor([step, 5 - step, 0])
        state, reward, terminated_prob = world.step(state, actions, seeded(step))
        answers += [state.tokens, reward, terminated_prob, world.decode(state)]
    frames = torch.stack(answers[3::4], dim=1)
    return [*answers, world.infer_latent_actions(frames)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_saved_world_answers_bit_for_bit_like_the_one_in_memory(untrained_world, saved):
    loaded = load_world(saved)
    for before, after in zip(play(untrained_world), play(loaded), strict=True):
        assert torch.equal(before, after)
    assert loaded.config == untrained_world.config
    assert loaded.parts == untrained_world.parts
    assert loaded.card["recording"] == "made up"
    assert torch.equal(loaded.starts.actions, untrained_world.starts.actions)


def test_a_bundle_is_three_files_and_no_more(saved):
    assert sorted(contents(saved)) == ["starts.safetensors", "weights.safetensors", "world.yaml"]


def test_parts_that_are_not_trained_are_left_out(build_untrained_world, tmp_path):
    save(build_untrained_world(parts=("tokenizer", "dynamics")), tmp_path)
    names = {name.split(".")[0] for name in load_file(tmp_path / "weights.safetensors")}
    assert names == {"tokenizer", "dynamics"}
    assert load_world(tmp_path).parts == {"tokenizer", "dynamics"}


def test_a_bfloat16_world_plays(saved):
    world, exact = load_world(saved, dtype="bfloat16"), load_world(saved)
    frames = torch.randint(256, (2, 4, 20, 28, 3), generator=seeded()).to(torch.uint8)
    state = world.encode(frames, torch.zeros(2, 3, dtype=torch.int64))
    assert torch.equal(state.tokens, exact.encode(frames, torch.zeros(2, 3).long()).tokens)
    state, reward, terminated_prob = world.step(state, torch.tensor([1, 2]), seeded())
    assert reward.dtype == terminated_prob.dtype == torch.float32
    assert torch.isfinite(reward).all()
    assert world.decode(state).dtype == torch.uint8
    assert torch.equal(world.infer_latent_actions(frames), exact.infer_latent_actions(frames))


def change_weights(folder, change):
    path = folder / "weights.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def test_a_missing_tensor_is_named(bundle):
    change_weights(bundle, lambda weights: weights.pop("dynamics.code_bias"))
    with pytest.raises(WorldError, match=r"lacks 1 tensors, the first 'dynamics\.code_bias'"):
        load_world(bundle)


def test_an_unknown_tensor_is_named(bundle):
    change_weights(bundle, lambda weights: weights.update({"dynamics.extra": torch.zeros(2)}))
    with pytest.raises(WorldError, match=r"holds 1 unknown tensors, the first 'dynamics\.extra'"):
        load_world(bundle)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(bundle):
    change_weights(bundle, lambda weights: weights.update({"dynamics.code_bias": torch.zeros(33)}))
    text = r"dynamics\.code_bias has shape \(33,\), but world\.yaml beside it needs \(32,\)"
    with pytest.raises(WorldError, match=text):
        load_world(bundle)


@pytest.mark.parametrize("name", ["weights.safetensors", "starts.safetensors"])
@pytest.mark.parametrize("num_bytes", [0, 5, 200])
def test_a_truncated_file_is_damaged(bundle, name, num_bytes):
    path = bundle / name
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(WorldError, match=rf"{name} is damaged \(.*\)\. Export the world again"):
        load_world(bundle)


@pytest.mark.parametrize("name", ["weights.safetensors", "starts.safetensors"])
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(WorldError, match=rf"{name} is missing\. Export the world again"):
        load_world(bundle)


def test_a_bundle_of_another_version_is_refused(bundle):
    card = {**yaml.safe_load((bundle / "world.yaml").read_text()), "bundle_version": 1}
    (bundle / "world.yaml").write_text(yaml.safe_dump(card))
    text = r"has bundle version 1; this genie_gym reads 3\. .* or export the world again"
    with pytest.raises(WorldError, match=text):
        load_world(bundle)


def test_a_card_that_is_not_yaml_is_refused(bundle):
    (bundle / "world.yaml").write_text("config: [1, 2")
    with pytest.raises(WorldError, match=r"is no world bundle: .* is not YAML"):
        load_world(bundle)


def test_a_world_that_is_nowhere_is_refused_with_the_way_to_train_one(tmp_path, monkeypatch):
    monkeypatch.setenv("GENIE_GYM_HOME", str(tmp_path))
    with pytest.raises(WorldError, match=r"no world 'nowhere': .*genie-gym collect ALE/") as error:
        load_world("nowhere")
    assert str(tmp_path / "nowhere") in str(error.value)


def test_a_mistyped_world_gets_the_nearest_name():
    if packaged_worlds():
        name = packaged_worlds()[0]
        with pytest.raises(WorldError, match=f"Did you mean '{name}'"):
            find_bundle(name + "g")


def test_worlds_are_found_by_path_and_by_name_below_the_home(saved, tmp_path, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(saved, home / "square")
    monkeypatch.setenv("GENIE_GYM_HOME", str(home))
    assert find_bundle("Square") == home / "square"
    assert find_bundle(saved) == saved
    assert find_bundle(str(saved)) == saved
    # A path comes before a name.
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, tmp_path / "square")
    assert find_bundle("square").resolve() == tmp_path / "square"


def test_an_unknown_dtype_is_refused(saved):
    with pytest.raises(WorldError, match=r"dtype must be one of .*, got 'float64'"):
        load_world(saved, dtype="float64")


def test_an_unknown_device_is_refused(saved):
    with pytest.raises(
        DeviceError, match=r"unknown device 'tpus'\. Take cpu, cuda, cuda:N or auto"
    ):
        load_world(saved, device="tpus")


def test_cuda_is_taken_where_it_is_and_refused_where_it_is_not(saved):
    if torch.cuda.is_available():
        assert load_world(saved, device="cuda").device.type == "cuda"
        assert choose_device("auto").type == "cuda"
    else:
        with pytest.raises(DeviceError, match=r"'cuda' was asked for, .* sees no CUDA GPU"):
            load_world(saved, device="cuda")
        assert choose_device("auto").type == "cpu"


def test_a_hub_name_that_cannot_be_one_is_refused():
    with pytest.raises(WorldError, match="hub repository 'not a name' could not be fetched"):
        find_bundle("hf://not a name")


def test_a_hub_world_offline_is_refused_in_words(tmp_path):
    code = (
        "from genie_gym.errors import WorldError\n"
        "from genie_gym.models.bundle import find_bundle\n"
        "try:\n"
        "    find_bundle('hf://nobody/nothing')\n"
        "except WorldError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("hub repository 'nobody/nothing' could not be fetched: ")


def test_a_save_that_fails_leaves_the_old_bundle_as_it_was(build_untrained_world, bundle):
    before = contents(bundle)
    with pytest.raises(yaml.YAMLError):
        save(build_untrained_world(seed=1), bundle, unwritable=object())
    after = contents(bundle)
    assert {name: after[name] for name in before} == before
    load_world(bundle)


def test_a_save_replaces_an_older_bundle(build_untrained_world, bundle):
    other = build_untrained_world(seed=1)
    save(other, bundle)
    assert sorted(contents(bundle)) == ["starts.safetensors", "weights.safetensors", "world.yaml"]
    for before, after in zip(play(other), play(load_world(bundle)), strict=True):
        assert torch.equal(before, after)


def test_measured_figures_are_put_into_the_card_and_the_rest_stays(bundle):
    before = read_card(bundle)
    update_figures(bundle, {"psnr": 40.0})
    assert read_card(bundle) == {**before, "figures": {"psnr": 40.0}}
