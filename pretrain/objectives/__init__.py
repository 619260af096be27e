"""Image-level and patch-level losses, one per file."""
