"""Other libraries' ops, each timed where it is installed: an adapter is a module of this folder.

An adapter has ``OPS``, the ops that it knows, and ``providers(op, device)``, as a user's own
function is (``daqakd bench --provider``, :mod:`daqakd.bench.own`).
"""

from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, NamedTuple

from ..measure import Provider


class Peer(NamedTuple):
    """Another library: the adapter's module, the library's, and what pip calls it."""

    adapter: str
    module: str
    package: str
    needs_gpu: bool = False

    def missing(self, device: str) -> str | None:
        """Return why the library cannot be timed on ``device``, or None."""
        if find_spec(self.module) is None:
            return f"not installed; pip install {self.package}"
        return "needs a GPU" if self.needs_gpu and device != "cuda" else None

    def load(self) -> Any:
        """Return the adapter; the library itself is imported by its first call."""
        return import_module(f".{self.adapter}", __package__)


PEERS = (
    Peer("brevitas", "brevitas", "brevitas"),
    Peer("torchao", "torchao", "torchao"),
    Peer("nncf", "nncf", "nncf"),
    Peer("liger", "liger_kernel", "liger-kernel", needs_gpu=True),
)


def providers_of(op: str, device: str) -> dict[str, Provider]:
    """Return the providers of an op that installed libraries have."""
    present = (peer.load() for peer in PEERS if peer.missing(device) is None)
    return {name: one for peer in present for name, one in peer.providers(op, device).items()}


def skipped(op: str, device: str) -> Iterator[tuple[str, str]]:
    """Yield name and reason of each library that has an op and cannot be timed."""
    for peer in PEERS:
        reason = peer.missing(device)
        if reason is not None and op in peer.load().OPS:
            yield peer.adapter, reason


def versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed."""
    found = {}
    for peer in PEERS:
        try:
            found[peer.package] = version(peer.package)
        except PackageNotFoundError:
            continue
    return found
