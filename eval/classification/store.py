# shim: remove
from eval.classification import features


class FeatureStore(features.FeatureStore):
    """As it was."""

    @property
    def num_files(self) -> int:
        """Use `spans`."""
        return len(self.spans)

    def span(self, number: int) -> range:
        """Use `spans`."""
        return self.spans[number]
