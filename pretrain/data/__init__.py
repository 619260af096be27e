"""Images to multi-crop views."""
