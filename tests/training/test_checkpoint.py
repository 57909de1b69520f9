import pytest
import torch

from genie_gym.errors import DataError
from genie_gym.training.checkpoint import Checkpoint, Checkpoints


def make(step):
    weight = torch.full((2, 3), float(step))
    optimizer = torch.optim.AdamW([torch.nn.Parameter(weight.clone())])
    return Checkpoint(step, {"weight": weight}, {"adamw": optimizer.state_dict()})


@pytest.fixture
def checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (5, 10, 100):
        checkpoints.save(make(step))
    return checkpoints


def test_what_is_saved_is_what_is_loaded(checkpoints):
    loaded = checkpoints.load_newest()
    assert loaded.step == 100
    torch.testing.assert_close(loaded.weights, make(100).weights)
    assert loaded.optimizers == make(100).optimizers


def test_the_two_newest_are_kept(checkpoints):
    names = sorted(path.name for path in checkpoints.folder.iterdir())
    assert names == ["step-00000010", "step-00000100"]


def test_no_folder_is_no_checkpoint(tmp_path):
    assert Checkpoints(tmp_path / "absent").load_newest() is None
    assert not (tmp_path / "absent").exists()


def test_what_a_kill_left_half_written_is_ignored_and_written_over(checkpoints):
    left = checkpoints.folder / ".step-00000200.part"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    assert checkpoints.load_newest().step == 100
    checkpoints.save(make(200))
    assert checkpoints.load_newest().step == 200
    assert not left.exists()


def test_a_step_can_be_saved_again(checkpoints):
    changed = Checkpoint(100, {"weight": torch.zeros(1)}, make(100).optimizers)
    checkpoints.save(changed)
    torch.testing.assert_close(checkpoints.load_newest().weights, changed.weights)


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizers.pt", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_newest_checkpoint_is_refused_and_the_one_before_remains(
    checkpoints, file, damage
):
    newest = checkpoints.folder / "step-00000100"
    if damage == "gone":
        (newest / file).unlink()
    else:
        content = (newest / file).read_bytes()
        (newest / file).write_bytes(content[: len(content) // 2])
    text = r"step-00000100 is damaged \(\w+\)\. Delete it to fall back to the one before"
    with pytest.raises(DataError, match=text):
        checkpoints.load_newest()
    checkpoints.folder.joinpath("step-00000100").rename(checkpoints.folder / "aside")
    assert checkpoints.load_newest().step == 10


def test_optimizer_state_that_would_run_code_is_refused(checkpoints):
    file = checkpoints.folder / "step-00000100" / "optimizers.pt"
    torch.save({"run": print}, file)
    with pytest.raises(DataError, match="is damaged"):
        checkpoints.load_newest()


def test_clear_leaves_nothing(checkpoints):
    checkpoints.clear()
    assert checkpoints.load_newest() is None
    checkpoints.clear()
