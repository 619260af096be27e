# shim: remove
"""The old names of `eval.record`."""

from eval.record import describe_dataset as describe_dataset
from eval.result import SAMPLE_MARKER as SAMPLE_MARKER
