"""Texts for people. No Textual here: the command line and the notebook use them too."""
