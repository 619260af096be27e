"""The network, and the one file format that it travels in."""
