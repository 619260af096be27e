"""A train loop whose iterations are updates of the weights, however many micro-batches each takes.

mmengine accumulates gradients over iterations, so that schedules, validation and checkpoints count micro-batches: a schedule
published in updates then changes with the memory of a GPU. Here the loader delivers the whole batch and the loop divides it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop


def micro_batches(batch: Mapping[str, Sequence[Any]], count: int) -> list[dict[str, Sequence[Any]]]:
    """Divide a batch of mmengine's `pseudo_collate` into equal parts, in order.

    Args:
        batch: Such as `{"inputs": [...], "data_samples": [...]}`, one entry per image.
        count: Number of parts; divides the number of images.
    """
    size, remainder = divmod(len(batch["inputs"]), count)
    assert not remainder, f"{len(batch['inputs'])} images do not make {count} equal micro-batches"
    return [{key: values[part * size : (part + 1) * size] for key, values in batch.items()} for part in range(count)]


@LOOPS.register_module()
class AccumulatingIterLoop(IterBasedTrainLoop):
    """An `IterBasedTrainLoop` for an optimiser wrapper with `accumulative_counts`.

    The gradient of an iteration is the mean over its micro-batches, which equals the gradient of the whole batch where a loss is
    a mean over images of one size. Batch normalisation sees one micro-batch at a time.
    """

    def run(self) -> Any:
        """Train; see mmengine."""
        wrapper = self.runner.optim_wrapper
        self._counts = wrapper._accumulative_counts
        # The runner initialised the wrapper's counter with iterations; it counts micro-batches.
        wrapper.initialize_count_status(self.runner.model, self.iter * self._counts, self.max_iters * self._counts)
        return super().run()

    def run_iter(self, data_batch: Mapping[str, Sequence[Any]]) -> None:
        """One update of the weights."""
        self.runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=data_batch)
        outputs: dict[str, Any] = {}
        for part in micro_batches(data_batch, self._counts):
            for name, value in self.runner.model.train_step(part, optim_wrapper=self.runner.optim_wrapper).items():
                outputs[name] = outputs.get(name, 0.0) + value.detach() / self._counts
        self.runner.call_hook("after_train_iter", batch_idx=self._iter, data_batch=data_batch, outputs=outputs)
        self._iter += 1
