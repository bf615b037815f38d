"""Gates: how they are written, and the verdict on them."""
