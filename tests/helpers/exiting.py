"""A script, which ends the program that imports it."""

raise SystemExit("a script")
