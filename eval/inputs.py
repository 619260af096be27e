# shim: remove
"""The old names of `eval.record`."""

from eval.record import Inputs as Inputs
from eval.record import differences as differences
from eval.record import inputs_digest as inputs_digest
