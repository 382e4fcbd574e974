"""``python -m daqakd`` is the ``daqakd`` command."""

from .cli.main import main

raise SystemExit(main())
