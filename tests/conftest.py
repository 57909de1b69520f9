"""Shape checks on, one thread, and the small worlds that many tests share."""

import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)
install_import_hook(["genie_gym", "planners", "collectors"], "beartype.beartype")
