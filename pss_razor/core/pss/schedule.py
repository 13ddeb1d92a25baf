"""Schedules as functions of progress."""


def exponential_decay(start: float, end: float, progress: float) -> float:
    """``start * (end / start) ** progress``: exploration and temperature of PSS (arXiv 2109.05432, section 3).

    Args:
        start: Value at progress 0, > 0.
        end: Value at progress 1, > 0.
        progress: Share of training that is over, epoch / max_epochs, in [0, 1].

    Returns:
        The value at ``progress``.
    """
    return float(start * (end / start) ** progress)
