"""Shows what a convolutional network has seen in images: equal colours mean similar features.

    import prism_cnn

    result = prism_cnn.explain("efficientnet_lite0", "photos/*.jpg")
    result                      # the figure, in a notebook
    result.maps                 # [N,3,H,W] float32, 0 to 1

The network runs in a process of its own with its own libtorch, beside whatever torch is installed here.
docs/python.md explains all of it.
"""

from typing import TYPE_CHECKING, List

if TYPE_CHECKING:
    from .errors import PrismError as PrismError
    from .errors import PrismWarning as PrismWarning
    from .errors import UsageError as UsageError
    from .explaining import explain as explain
    from .explaining import layers as layers
    from .result import Result as Result
    from .torchprism import PRISM as PRISM

__version__ = "0.1.0"

# The command `prism` starts here as well, so NumPy is loaded only if it is needed.
_PLACES = {
    "explain": "explaining",
    "layers": "explaining",
    "Result": "result",
    "PRISM": "torchprism",
    "PrismError": "errors",
    "PrismWarning": "errors",
    "UsageError": "errors",
}
__all__ = [*_PLACES, "__version__"]


if not TYPE_CHECKING:  # a checker knows the names by the imports above, and that there are no others

    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})
