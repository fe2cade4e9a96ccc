"""`python -m clusterbuild`."""

from clusterbuild.cli import main

raise SystemExit(main())
