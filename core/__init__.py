"""What revector does: Postgres in, frozen dataclasses out. No terminal, no printing."""
