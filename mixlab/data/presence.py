"""Whether a data set's files are there."""

from __future__ import annotations

from mixlab.data.config import DataConfig
from mixlab.data.sources import find_source


def at_hand(config: DataConfig) -> bool:
    """Whether the files of a data set are on this machine; none of them is read, and nothing is fetched.

    False says that the set is absent, and nothing else. A set that is there and broken, or of which a part is missing,
    is at hand: :func:`open_data` says what is wrong with it. ``download`` is not looked at.

    Raises:
        UserError: the name is unknown, or not one that its source takes.
    """
    source, argument = find_source(config.name)
    return source.at_hand is None or source.at_hand(config, argument)
