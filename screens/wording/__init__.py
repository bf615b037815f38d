"""Words for people: no Textual here, the command line and the notebook use them too."""
