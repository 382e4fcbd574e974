"""Triton kernels of daqakd, installed as ``daqakd.kernels``."""

if __name__ != "daqakd.kernels":
    raise ImportError(
        f"this folder is daqakd.kernels, but it was imported as {__name__!r}: "
        "install the project (pip install -e .) and import daqakd.kernels; "
        "for another package called 'kernels', run from outside the repository root"
    )

__all__: list[str] = []
