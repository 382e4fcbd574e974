"""Microbenchmarks of the ops, as a table: ``daqakd bench``."""

from .run import bench_into

__all__ = ["bench_into"]
