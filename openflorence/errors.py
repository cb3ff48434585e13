"""Every error a user can meet, one tree.

OpenFlorenceError
├── BadConfig        a configuration that cannot describe a network, or a setting outside its range
├── BadCheckpoint    weights or tokenizer files that are missing, misshapen or of an unknown layout
├── BadImage         an image that cannot be read, or is outside the limits
├── BadPrompt        a task that does not exist, or a task without (or with the wrong) input
├── BadRecord        an annotation, or a file of annotations, that cannot be read, or a data set without a usable one
├── BadRegion        a box, quad or polygon that is empty, not finite, or outside its image
├── StageFailed      a stage of the engine that cannot go on: the run stopped, what was committed stays
└── TrainingDiverged a loss or gradient that is not finite: the run stopped, its last saved state is still good

A message says what failed, what was seen, what is allowed and what to do next. Our own mistakes are `assert`.
"""


class OpenFlorenceError(Exception):
    """Anything a user did, or gave, that we can name. Catch this one to catch them all."""


class BadConfig(OpenFlorenceError, ValueError):
    """Raised when sizes or settings contradict one another or leave their range."""


class BadCheckpoint(OpenFlorenceError, ValueError):
    """Raised when a checkpoint cannot be loaded exactly; the message names the key or the file."""


class BadImage(OpenFlorenceError, ValueError):
    """Raised when an image input cannot become pixels; the message names the input."""


class BadPrompt(OpenFlorenceError, ValueError):
    """Raised when a task or its input cannot become a prompt."""


class BadRecord(OpenFlorenceError, ValueError):
    """Raised when annotations cannot be read, or nothing of a data set is usable; names the file and the entry."""


class BadRegion(OpenFlorenceError, ValueError):
    """Raised when a region cannot be written as locations of its image."""


class StageFailed(OpenFlorenceError, RuntimeError):
    """Raised when a stage cannot be set up or dies again and again, or the store cannot be read or written."""


class TrainingDiverged(OpenFlorenceError, ArithmeticError):
    """Raised when a training step gives numbers that are not finite, before they reach the weights."""
