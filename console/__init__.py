"""The ways into revector: the console, the command line and the demo."""
