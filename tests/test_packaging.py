import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    found = [Requirement(line) for line in lines]
    return [one for one in found if canonical(one.name) != canonical(project["name"])]


def pins():
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").open())
    parts = (line.split("==") for line in lines if line)
    return {canonical(name): version for name, version in parts}


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, genie_gym; print(*({'torch', 'h5py', 'cv2'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_every_direct_dependency_is_pinned_to_a_version_it_allows(requirement):
    assert requirement.specifier.contains(pins()[canonical(requirement.name)])


def test_every_pin_is_a_direct_dependency():
    assert set(pins()) <= {canonical(requirement.name) for requirement in requirements()}


def test_the_import_contracts_hold():
    # no_cache: the tests write nothing into the checkout.
    code = (
        "from importlinter.cli import lint_imports as lint; raise SystemExit(lint(no_cache=True))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_wheel_tells_type_checkers_that_it_is_typed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "py.typed" in settings["package-data"]["genie_gym"]
    assert (ROOT / "genie_gym" / "py.typed").is_file()
