"""Microbenchmarks of the ops, as a table: ``daqakd bench``."""
