"""Images that cannot be decoded."""

import logging

logger = logging.getLogger(__name__)


class UnreadableImages:
    """Counts the distinct files that could not be decoded, names each once, and gives up past a limit."""

    def __init__(self, limit: int) -> None:
        """Start with none.

        Args:
            limit: How many distinct unreadable files are tolerated.
        """
        self.limit = limit
        self.paths: set[str] = set()

    def report(self, failures: dict[str, str]) -> None:
        """Take note of failures.

        Args:
            failures: Path -> reason.

        Raises:
            ValueError: If there are now more than the limit.
        """
        for path, reason in failures.items():
            if path not in self.paths:
                self.paths.add(path)
                logger.warning("skipping the unreadable image %s: %s", path, reason)
        if len(self.paths) > self.limit:
            raise ValueError(
                f"{len(self.paths)} unreadable images, more than data.max_unreadable={self.limit}; "
                f"the last is {sorted(self.paths)[-1]}; repair or remove them, or raise the limit"
            )
