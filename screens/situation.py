"""What the screen depends on: the snapshot, the version selected, and what the console and its tabs know themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from revector.core.backfill.job.status import JobStatus
from revector.core.index import IndexState
from revector.core.overview import Overview
from revector.core.registry import VersionStatus
from revector.core.roles import EVERYTHING, Rights

Known = TypeVar("Known")

AT_WORK = ("running", "pausing", "proving")
"""States of a backfill in which somebody works on it."""


@dataclass(frozen=True)
class State:
    """The console's own state. `live` says that the snapshot is fresh: without that nothing can be done."""

    tab: str = ""
    """The key of the tab in front."""
    live: bool = False
    read_only: bool = False
    typing: bool = False
    working: frozenset[str] = frozenset()
    """Versions on whose backfill or index this process works."""
    staying: frozenset[str] = frozenset()
    """Those of them that it stays with, through a pause and when they are done."""
    on_ray: frozenset[str] = frozenset()
    """Those of them whose workers are on Ray."""
    tight: bool = False
    """Whether the tab in front shows its parts in turn."""


@dataclass(frozen=True)
class Situation:
    """One moment, as every screen and every action's condition sees it."""

    overview: Overview | None = None
    selection: str | None = None
    state: State = field(default_factory=State)
    tabs: tuple[object, ...] = ()
    """What each tab that was shown knows beside the snapshot, in a class of its own."""

    def of(self, kind: type[Known]) -> Known:
        """What the tab with that class knows; before it is first shown, what the class says by default."""
        return next((known for known in self.tabs if isinstance(known, kind)), None) or kind()

    @property
    def rights(self) -> Rights:
        """What our role may do; before the first snapshot nothing can be done anyway."""
        return self.overview.rights if self.overview else EVERYTHING

    @property
    def looks_only(self) -> bool:
        """Whether nothing of a collection's work can be done here: a read-only session, or a role without the right."""
        return self.state.read_only or not self.rights.operate

    @property
    def versions(self) -> tuple[VersionStatus, ...]:
        """All versions, oldest first; none before the first snapshot."""
        return self.overview.versions if self.overview else ()

    @property
    def active(self) -> VersionStatus | None:
        """The version that answers users."""
        return next((s for s in self.versions if s.version.active), None)

    @property
    def selected(self) -> VersionStatus | None:
        """The version selected, or the first one that there is."""
        return self._find(self.selection) or (self.versions[0] if self.versions else None)

    @property
    def candidate(self) -> VersionStatus | None:
        """The version that the active one is held against: the one selected, else the newest with vectors."""
        selected = self._find(self.selection)
        if selected is not None and not selected.version.active:
            return selected
        others = [s for s in self.versions if not s.version.active]
        return next((s for s in reversed(others) if s.embedded), others[-1] if others else None)

    @property
    def rollback(self) -> VersionStatus | None:
        """The version that a rollback goes to."""
        return self._find(self.overview.rollback_to) if self.overview else None

    def job(self, status: VersionStatus | None) -> JobStatus | None:
        """The backfill of a version, if it ever had one."""
        return self.overview.jobs.get(status.version.version_key) if self.overview and status else None

    def index(self, status: VersionStatus) -> IndexState | None:
        """The index of a version, as the catalogue has it."""
        return self.overview.indexes.get(status.version.version_key) if self.overview else None

    def build(self, status: VersionStatus) -> tuple[str, int, int] | None:
        """(phase, done, total) of the index build of a version that runs now, in any session."""
        return self.overview.builds.get(status.version.version_key) if self.overview else None

    def _find(self, key: str | None) -> VersionStatus | None:
        return next((s for s in self.versions if s.version.version_key == key), None)


class Following:
    """A screen over the tabs, or a line of buttons, that has to know how things stand."""

    def show(self, situation: Situation) -> None:
        """Take notice of this moment."""


def key_of(status: VersionStatus | None) -> str | None:
    """The version key, None for no version."""
    return status.version.version_key if status else None
