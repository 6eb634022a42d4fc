"""`python -m coevo`, which is what accelerate launches."""

import sys

from coevo.cli import main

sys.exit(main())
