"""Who serves what: processes that search, and the version that each of them follows."""
