"""The data check of dense retrieval, which is that of all data sets with label maps; VOC's memory is of the augmented labels."""

from functools import partial

from eval.probes import sets

examine = partial(sets.examine, augmented=True)
