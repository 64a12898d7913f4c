"""TorchPRISM's way of asking for maps."""

import weakref
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Tuple

from .errors import UsageError, warn

if TYPE_CHECKING:
    import torch


class PRISM:
    """TorchPRISM's class, with the maps of TorchPRISM.

        from prism_cnn import PRISM

        PRISM.register_hooks(model)
        model(input_batch)
        maps = PRISM.get_maps()

    The images of the last call count, of whichever model. Nothing else is kept, so repeated calls do not add up.
    """

    _watched: "weakref.WeakSet[Any]" = weakref.WeakSet()
    _last: Optional[Tuple[Any, "torch.Tensor", bool, List[Any]]] = None

    @staticmethod
    def register_hooks(model: "torch.nn.Module", recursive: bool = False) -> None:
        """Watches which images a model is called with; a second time changes nothing.

        Args:
            model: an `nn.Module` whose first argument is a batch `[N,C,H,W]`.
            recursive: TorchPRISM's own use; without effect.
        """
        if PRISM._remember not in model._forward_pre_hooks.values():
            model.register_forward_pre_hook(PRISM._remember, with_kwargs=True)
        PRISM._watched.add(model)

    @staticmethod
    def prune_old_hooks(model: "Optional[torch.nn.Module]" = None) -> None:
        """Ends the watch on a model, or on all, and forgets their images."""
        for watched in list(PRISM._watched) if model is None else [model]:
            PRISM._watched.discard(watched)
            hooks = watched._forward_pre_hooks
            for key in [key for key, hook in hooks.items() if hook is PRISM._remember]:
                del hooks[key]
                watched._forward_pre_hooks_with_kwargs.pop(key, None)
            if PRISM._last is not None and PRISM._last[0]() is watched:
                PRISM._last = None

    prune = prune_old_hooks

    @staticmethod
    def get_maps(grad_extrap: bool = True, inclusive: bool = False, exclusive: bool = False) -> "torch.Tensor":
        """The maps of the last batch.

        Args:
            grad_extrap: gradual extrapolation, up to the resolution of the shallowest captured layer.
            inclusive: only features that all images share.
            exclusive: only features that some images lack; with `inclusive`, all of them, quantised.
        Returns:
            `[N,3,H,W]` float32, 0 to 1, on the device of the images; at the resolution of the features without
            `grad_extrap`.
        Raises:
            UsageError: if no batch is known, or the weights have changed since.
        """
        import torch

        from .explaining import explain

        model = PRISM._last[0]() if PRISM._last is not None else None
        if PRISM._last is None or model is None:
            raise UsageError("no images are known: call the model after PRISM.register_hooks(model)")
        _, images, was_training, before = PRISM._last
        for now, then in zip_longest(_checksums(model), before, fillvalue=0):
            if now is not None and then is not None and int(now) != int(then):
                raise UsageError("the weights have changed since the images were forwarded; call the model again")
        if was_training and not _is_training(model):  # else the export says it
            warn("the model was in training mode; the maps are those of evaluation mode")
        result = explain(
            model,
            images,
            hooks="torchprism",
            inclusive=inclusive,
            exclusive=exclusive,
            no_gradual_extrapolation=not grad_extrap,
            figures="none",
            no_legend=True,
            arrays="maps",
            quiet=True,
        )
        return torch.from_numpy(result.maps).to(images.device)

    @staticmethod
    def _remember(model: "torch.nn.Module", inputs: Tuple[Any, ...], keywords: Dict[str, Any]) -> None:
        PRISM._watched.add(model)  # a copy of a watched model has this hook, too
        images = inputs[0] if inputs else next(iter(keywords.values()), None)
        if not hasattr(images, "detach"):
            PRISM._last = None  # not the images of an earlier call
            return
        # A copy, because the network may write into its input.
        PRISM._last = weakref.ref(model), images.detach().clone(), _is_training(model), _checksums(model)


@contextmanager
def without_hooks(model: "torch.nn.Module") -> Iterator[None]:
    """A model whose parts do not call PRISM for a while."""
    hooked = [part._forward_pre_hooks for part in model.modules()]
    hooked = [hooks for hooks in hooked if PRISM._remember in hooks.values()]
    before = [list(hooks.items()) for hooks in hooked]
    try:
        for hooks, items in zip(hooked, before):
            hooks.clear()
            hooks.update((key, hook) for key, hook in items if hook is not PRISM._remember)
        yield
    finally:
        for hooks, items in zip(hooked, before):
            hooks.clear()
            hooks.update(items)


def _is_training(model: "torch.nn.Module") -> bool:
    return any(part.training for part in model.modules())


def _checksums(model: "torch.nn.Module") -> List[Any]:
    """A number of each parameter of a model, which shows whether it was written to: the sum of its bits as integers.

    Buffers are left out, because a batch-norm writes into its own. None where there is no number: of parameters that
    get their shape by the first call, or that are quantised.
    """
    import torch

    words = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    sums: List[Any] = []
    for tensor in model.parameters():
        try:
            word = words[tensor.element_size()]
            # Without a conversion a sum takes as long as reading the numbers.
            sums.append(tensor.detach().view(word).sum(dtype=torch.int64 if word is torch.int64 else torch.int32))
        except Exception:
            sums.append(None)
    return sums
