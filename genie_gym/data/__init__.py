"""Recordings on disk, and the windows that training cuts from them."""
