"""One family of errors for everything a user can put right; each names the thing, its value and the remedy."""


class PSSError(ValueError):
    """Base of all errors that a user can act on. Tools print it as one line instead of a traceback."""


class ConfigError(PSSError):
    """A config misses a key, has one too many, or has a value that cannot work."""


class UnreachableTargetError(PSSError):
    """No subnet of the search space has the wanted resource."""


class CheckpointError(PSSError):
    """A checkpoint is missing, incomplete, unsafe, or belongs to another model."""


class DataError(PSSError):
    """A dataset is missing, empty, or does not fit the model."""


class TrainingDivergedError(PSSError, FloatingPointError):
    """A loss is not a finite number any more."""


class MissingPackageError(PSSError, ImportError):
    """A package of an extra is not installed."""


class ExportError(PSSError):
    """An exported subnet cannot be written, read, or trusted."""
