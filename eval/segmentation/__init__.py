"""Semantic FPN and UperNet on ADE20K."""
