"""`python -m jaxdyn` is the `jaxdyn` command."""

from jaxdyn.cli import main

raise SystemExit(main())
