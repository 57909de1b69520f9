import os

import pytest

from genie_gym.data.folders import new_folder
from genie_gym.errors import DataError


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_is_kept_and_what_it_leads_to_is_filled(tmp_path, is_there):
    target, link = tmp_path / "disk" / "target", tmp_path / "link"
    target.parent.mkdir()
    if is_there:
        target.mkdir()
    link.symlink_to(target)
    with new_folder(link) as folder:
        (folder / "file").touch()
    assert link.is_symlink() and os.listdir(target) == ["file"]
    assert sorted(os.listdir(tmp_path)) == ["disk", "link"]
    assert os.listdir(target.parent) == ["target"]


@pytest.mark.parametrize("make", [lambda path: path.symlink_to(path), os.mkfifo])
def test_what_is_no_folder_is_refused_at_once(tmp_path, make):
    make(tmp_path / "out")
    with pytest.raises(DataError, match=r"out is there already and not empty. Name another --out"):
        with new_folder(tmp_path / "out"):
            pytest.fail("the work began")
