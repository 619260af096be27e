"""Sharing sequences over the processes that torchrun started."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from eval.davis.dataset import VideoSequence
from eval.processes import Process, joined
from eval.processes import wait_for_all as wait_for_all


@dataclass(frozen=True, kw_only=True)
class Shard(Process):
    """Which of how many processes this one is, and its share of the sequences."""

    def share(self, sequences: Sequence[VideoSequence]) -> list[VideoSequence]:
        """This process's sequences: the longest first, each to the process with the fewest frames so far, in the given order."""
        loads = [0] * self.world_size
        owner = {}
        for sequence in sorted(sequences, key=lambda item: (-len(item.frames), item.name)):
            owner[sequence.name] = rank = loads.index(min(loads))
            loads[rank] += len(sequence.frames)
        return [sequence for sequence in sequences if owner[sequence.name] == self.rank]


@contextmanager
def joined_processes() -> Iterator[Shard]:
    """This process's shard, joined with the others as long as the context lasts."""
    with joined(Shard.current()) as shard:
        yield shard
