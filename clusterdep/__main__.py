"""`python -m clusterdep`."""

from clusterdep.cli import main

raise SystemExit(main())
