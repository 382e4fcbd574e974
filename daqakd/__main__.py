"""``python -m daqakd`` is the ``daqakd`` command."""

from .cli import main

raise SystemExit(main())
