"""What every part of PatchBench shares: the command line, processes and devices, images, files, k-NN and plots."""

import os

# Threads that spin while they wait for work slow each other down many times over on shared cores. OpenMP reads this once, when torch
# is loaded; on a quiet machine it costs some 5 %.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
