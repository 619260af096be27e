"""Segmentation by dense retrieval: patches take the labels of the most similar patches of a memory."""
