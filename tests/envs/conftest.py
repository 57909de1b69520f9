import numpy as np
import pytest


@pytest.fixture
def clip():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
