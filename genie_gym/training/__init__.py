"""One training loop for every part of the stack."""
