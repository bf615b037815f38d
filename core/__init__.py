"""What revector does: Postgres in, frozen dataclasses out. No terminal, no printing."""

import logging

logging.getLogger("revector").addHandler(logging.NullHandler())  # silent until the application says otherwise
