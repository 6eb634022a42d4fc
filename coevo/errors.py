"""The errors that a user can meet. Each message names the place, the value, what was expected and the remedy."""


class CoevoError(Exception):
    """Base of every error that coevo raises on purpose; the command line prints it without a traceback, exit code 2."""


class ConfigError(CoevoError):
    """A recipe, an override or a launch setting that cannot be run as written."""


class DataError(CoevoError):
    """A data file or a sample in it that breaks the format."""


class ScoreError(CoevoError):
    """A likelihood or a reward that cannot be computed as asked."""


class CheckpointError(CoevoError):
    """A run folder, adapter or checkpoint that does not fit what it is loaded on."""


class TrainingError(CoevoError):
    """A training whose numbers are none any more; found by all processes alike."""


class EndpointError(CoevoError):
    """A model behind a network that cannot be reached, or refuses to work for us."""


class StorageError(CoevoError):
    """A file that could not be written: the disk is full, or a quota is used up."""
