"""Seeing a pretraining run learn: online k-NN, plots and curves. Nothing here changes what is trained."""
