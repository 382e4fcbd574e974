"""DAQAKD."""
