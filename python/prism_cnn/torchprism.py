"""TorchPRISM's way of asking for maps."""

import weakref
from typing import TYPE_CHECKING, Any, List, Optional, Tuple

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

    _hooks: "weakref.WeakKeyDictionary[Any, Any]" = weakref.WeakKeyDictionary()
    _last: Optional[Tuple[Any, "torch.Tensor", bool, List[Any]]] = None

    @staticmethod
    def register_hooks(model: "torch.nn.Module", recursive: bool = False) -> None:
        """Watches which images a model is called with; a second time changes nothing.

        Args:
            model: an `nn.Module` whose first argument is a batch `[N,C,H,W]`.
            recursive: TorchPRISM's own use; without effect.
        """
        if model not in PRISM._hooks:
            PRISM._hooks[model] = model.register_forward_pre_hook(PRISM._remember)

    @staticmethod
    def prune_old_hooks(model: "Optional[torch.nn.Module]" = None) -> None:
        """Ends the watch on a model, or on all, and forgets their images."""
        for watched in list(PRISM._hooks) if model is None else [model]:
            handle = PRISM._hooks.pop(watched, None)
            if handle is not None:
                handle.remove()
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
        _, images, was_training, versions = PRISM._last
        if versions != _versions(model):
            raise UsageError("the weights have changed since the images were forwarded; call the model again")
        if was_training and not model.training:  # else the export says it
            warn("the model was in training mode; the maps are those of evaluation mode")
        PRISM._hooks.pop(model).remove()  # it must not become a part of the file
        try:
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
        finally:
            PRISM.register_hooks(model)

    @staticmethod
    def _remember(model: "torch.nn.Module", inputs: Tuple[Any, ...]) -> None:
        if not inputs or not hasattr(inputs[0], "detach"):
            return
        # A copy, because the network may write into its input.
        PRISM._last = weakref.ref(model), inputs[0].detach().clone(), model.training, _versions(model)


def _versions(model: "torch.nn.Module") -> List[Any]:
    """How often each parameter of a model was written to. Batch-norms write into their buffers by themselves."""
    return [(tensor.data_ptr(), tensor._version) for tensor in model.parameters()]
