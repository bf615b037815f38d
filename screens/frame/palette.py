"""The command palette: the offered actions, found by typing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from textual.command import DiscoveryHit, Hit, Hits, Provider

from revector.screens.actions import Action, label_of, shown_keys
from revector.screens.pane import Pane
from revector.screens.situation import Situation


def provider_of(actions: Iterable[Action], situation: Situation) -> type[Provider]:
    """A provider of these actions, as they were offered when the palette was opened."""
    offers = [
        (f"{action.help}  ({label_of(shown_keys(action, situation)[0])})", action)
        for action in actions
        if action.id != "palette" and not action.typing
    ]

    class ActionProvider(Provider):
        """Actions by their help text."""

        async def discover(self) -> Hits:
            for text, action in offers:
                yield DiscoveryHit(text, self._does(action), text)

        async def search(self, query: str) -> Hits:
            matcher = self.matcher(query)
            for text, action in offers:
                score = matcher.match(text)
                if score > 0:
                    yield Hit(score, matcher.highlight(text), self._does(action), text=text)

        def _does(self, action: Action) -> Callable[[], object]:
            return lambda: self.app.post_message(Pane.Act(action.id))

    return ActionProvider
