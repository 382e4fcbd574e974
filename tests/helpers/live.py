"""Which memory of tensors is alive, as far as the dispatcher saw it made."""

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations made within it, now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        results = function(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if is_tensor(x)}
        for x in filter(is_tensor, tree_leaves(results)):
            storage = x.untyped_storage()
            if storage._cdata not in given:
                self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, self.bytes)
        return results

    @property
    def bytes(self) -> int:
        """What is alive now."""
        gone = [key for key, (storage, _) in self.storages.items() if storage.expired()]
        for key in gone:
            del self.storages[key]
        return sum(size for _, size in self.storages.values())


def is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor) and x.layout == torch.strided
