"""The ``daqakd`` command: ``main.py`` finds a command's file, which holds its options and work."""
