"""Florence-2 as one whole, open system. `openflorence.load()` gives a model; docs/tour.md shows the way around.

Four names, resolved on first use: `import openflorence` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openflorence.contract.regions import Answer
    from openflorence.contract.tasks import TASKS
    from openflorence.model.predict import Florence, load

__version__ = "0.1.0"

__all__ = ["TASKS", "Answer", "Florence", "__version__", "load"]

_HOMES = {
    "load": "openflorence.model.predict",
    "Florence": "openflorence.model.predict",
    "Answer": "openflorence.contract.regions",
    "TASKS": "openflorence.contract.tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"openflorence has no {name!r}; it has {', '.join(_HOMES)} and __version__")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next look finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
