"""Seeing it learn: signs of collapse, online k-NN, pictures and curves; nothing here changes what is trained."""
