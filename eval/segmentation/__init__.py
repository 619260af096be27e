"""Semantic FPN on ADE20K."""
