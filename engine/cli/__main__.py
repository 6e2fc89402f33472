"""`python -m engine.cli VERB …`: the verbs without the console script."""

import sys

from engine.cli.app import main

sys.exit(main())
