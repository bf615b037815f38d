"""What the screen depends on: the snapshot, the selected version, and the state of the console and its tabs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from revector.core.backfill.job.status import JobStatus
from revector.core.index import IndexState
from revector.core.overview import Overview
from revector.core.registry import VersionStatus
from revector.core.roles.rights import EVERYTHING, Rights

Known = TypeVar("Known")

AT_WORK = ("running", "pausing", "proving")
"""States of a backfill in which workers are active."""


@dataclass(frozen=True)
class State:
    """The console's own state. `live` says that the snapshot is fresh; otherwise nothing can be done."""

    tab: str = ""
    """The key of the current tab."""
    live: bool = False
    read_only: bool = False
    typing: bool = False
    working: frozenset[str] = frozenset()
    """Versions on whose backfill or index this process works."""
    staying: frozenset[str] = frozenset()
    """The versions that it stays with, through a pause and when they are done."""
    on_ray: frozenset[str] = frozenset()
    """The versions whose workers are on Ray."""
    tight: bool = False
    """Whether the current tab shows one part at a time."""


@dataclass(frozen=True)
class Situation:
    """One moment, as seen by every screen and every action's condition."""

    overview: Overview | None = None
    selection: str | None = None
    state: State = field(default_factory=State)
    tabs: tuple[object, ...] = ()
    """The state of each tab shown so far, each in its own class."""

    def of(self, kind: type[Known]) -> Known:
        """The state of that class; its defaults before its tab is first shown."""
        return next((known for known in self.tabs if isinstance(known, kind)), None) or kind()

    @property
    def rights(self) -> Rights:
        """The rights of our role; before the first snapshot nothing can be done anyway."""
        return self.overview.rights if self.overview else EVERYTHING

    @property
    def looks_only(self) -> bool:
        """Whether nothing can be changed here: a read-only session, or a role without the right."""
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
        """The selected version, or the first one."""
        return self._find(self.selection) or (self.versions[0] if self.versions else None)

    @property
    def candidate(self) -> VersionStatus | None:
        """The version compared with the active one: the selected one, else the newest with vectors."""
        selected = self._find(self.selection)
        if selected is not None and not selected.version.active:
            return selected
        others = [s for s in self.versions if not s.version.active]
        return next((s for s in reversed(others) if s.embedded), others[-1] if others else None)

    @property
    def rollback(self) -> VersionStatus | None:
        """The target of a rollback."""
        return self._find(self.overview.rollback_to) if self.overview else None

    def job(self, status: VersionStatus | None) -> JobStatus | None:
        """The backfill of a version, if it ever had one."""
        return self.overview.jobs.get(status.version.version_key) if self.overview and status else None

    def index(self, status: VersionStatus) -> IndexState | None:
        """The index of a version, from the catalogue."""
        return self.overview.indexes.get(status.version.version_key) if self.overview else None

    def build(self, status: VersionStatus) -> tuple[str, int, int] | None:
        """(phase, done, total) of a version's index build running in any session."""
        return self.overview.builds.get(status.version.version_key) if self.overview else None

    def _find(self, key: str | None) -> VersionStatus | None:
        return next((s for s in self.versions if s.version.version_key == key), None)


class Following:
    """A screen over the tabs, or a line of buttons, that follows the situation."""

    def show(self, situation: Situation) -> None:
        """Show this situation."""


def key_of(status: VersionStatus | None) -> str | None:
    """The version key, None for no version."""
    return status.version.version_key if status else None
