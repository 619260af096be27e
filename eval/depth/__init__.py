"""Depth on NYU: a linear layer on a frozen backbone's patches, under DINOv3's protocol."""
