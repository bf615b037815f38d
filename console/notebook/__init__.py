"""revector in Jupyter: answers as HTML without scripts or a widget server, so that a saved notebook keeps them.

from revector import Console

console = Console()
console.compare("rotate an api key")
"""

from revector.console.notebook.console import Console

__all__ = ["Console"]
