"""The data check of dense retrieval, which is that of all data sets with label maps; VOC's memory is of the augmented labels."""

from functools import partial

from eval.probes.sets import examine_set

examine = partial(examine_set, augmented=True)
