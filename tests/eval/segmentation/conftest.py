import eval.openmmlab.operators  # noqa: F401 - before any test imports mmseg
