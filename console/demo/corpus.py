"""The corpus of the demo: the documentation of the Python standard library.

It is read from the running interpreter, so the demo downloads nothing, and every engineer can judge whether a
result answers a query. An entry is a language topic of `help()` or the docstring of a public module, class,
function or method; each docstring is one entry, under the name people import it by.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import inspect
import io
import re
import sys
import sysconfig
import types
import warnings
from collections import ChainMap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

# Modules that open windows or change the terminal (tkinter is missing from many builds anyway), easter eggs that
# act on import, tests, and the platform parts of `os`, `os.path` and `xml.parsers.expat`.
_SKIPPED = """
    antigravity genericpath idlelib nt ntpath posix posixpath pydoc_data pyexpat readline rlcompleter test
    this tkinter turtle turtledemo
"""

# Removed or deprecated by Python 3.13: without them, judgements made on 3.11 hold on later versions.
_REMOVED = """
    aifc asynchat asyncore audioop cgi cgitb chunk crypt distutils imghdr imp lib2to3 mailcap msilib nis
    nntplib nturl2path ossaudiodev pipes smtpd sndhdr spwd sre_compile sre_constants sre_parse sunau telnetlib
    uu xdrlib
"""

# Packages are not walked, since `asyncio.tasks` would compete with `asyncio` for the same names; these are the
# submodules that the library's manual tells people to import.
_SUBMODULES = """
    collections.abc concurrent.futures ctypes.util curses.ascii curses.panel curses.textpad dbm.dumb
    email.charset email.contentmanager email.encoders email.errors email.generator email.header
    email.headerregistry email.iterators email.message email.mime.application email.mime.audio email.mime.base
    email.mime.image email.mime.message email.mime.multipart email.mime.nonmultipart email.mime.text
    email.parser email.policy email.utils encodings.idna html.entities html.parser http.client http.cookiejar
    http.cookies http.server importlib.abc importlib.machinery importlib.metadata importlib.resources
    importlib.util json.tool logging.config logging.handlers multiprocessing.connection
    multiprocessing.managers multiprocessing.pool multiprocessing.shared_memory multiprocessing.sharedctypes
    os.path unittest.mock urllib.error urllib.parse urllib.request urllib.response urllib.robotparser
    wsgiref.handlers wsgiref.headers wsgiref.simple_server wsgiref.util wsgiref.validate xml.dom
    xml.dom.minidom xml.dom.pulldom xml.etree.ElementTree xml.parsers.expat xml.sax xml.sax.handler
    xml.sax.saxutils xml.sax.xmlreader xmlrpc.client xmlrpc.server
"""

_FEWEST_WORDS = 3
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


@dataclass(frozen=True)
class Entry:
    """One entry of the documentation."""

    id: str
    title: str
    text: str
    kind: str


@dataclass(frozen=True)
class _Name:
    """A public object under one of its names; `own` says whether it is the object's own name."""

    symbol: str
    value: object
    own: bool


@dataclass(frozen=True)
class _Found:
    """A docstring under one of its names, before it is known which of them becomes the entry."""

    name: _Name
    kind: str
    text: str

    def rank(self) -> tuple[bool, bool, int, int, str]:
        """Lowest for the best name: a builtin, then its own name, then the shortest."""
        symbol = self.name.symbol
        builtin = hasattr(builtins, symbol.partition(".")[0])
        return not builtin, not self.name.own, symbol.count("."), len(symbol), symbol


class _Elided:
    """Replaces a default in a signature whose repr depends on the machine or the process."""

    def __repr__(self) -> str:
        return "..."


def standard_library() -> list[Entry]:
    """The documentation of the running standard library, in id order."""
    # Some modules warn on import that they are deprecated, and some print.
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
        modules = _modules()
        names = [name for module_name, module in modules.items() for name in _public(module_name, module)]
        docs = [_documented(_Name(name, one, own=True), "module", one.__doc__) for name, one in modules.items()]
        best: dict[str, _Found] = {}  # each text once
        for found in sorted([*_topics(), *chain(*docs), *_members(names), *_methods(names)], key=_Found.rank):
            best.setdefault(" ".join(found.text.split()), found)
        entries = [_entry(one) for one in best.values()]
    return sorted(entries, key=lambda entry: entry.id)


def _modules() -> dict[str, types.ModuleType]:
    """The public modules by name; modules missing from a build or platform are skipped."""
    tops = {name for name in sys.stdlib_module_names if not name.startswith("_")}
    modules = {}
    for name in sorted(tops.difference(_SKIPPED.split(), _REMOVED.split()).union(_SUBMODULES.split())):
        with contextlib.suppress(ImportError):
            modules[name] = importlib.import_module(name)
    return modules


def _public(module_name: str, module: types.ModuleType) -> Iterator[_Name]:
    """What a module declares public, or else what it defines."""
    declared = getattr(module, "__all__", None)
    for name in vars(module) if declared is None else declared:
        # Some tool may have replaced a hook (sys.excepthook); the original is sys.__excepthook__.
        value = vars(module).get(f"__{name}__", getattr(module, name, None))
        stranger = declared is None and not _defines(module_name, value)
        if name.startswith("_") or not callable(value) or stranger:
            continue
        symbol = name if module is builtins else f"{module_name}.{name}"
        own = getattr(value, "__module__", None) == module_name and getattr(value, "__name__", None) == name
        yield _Name(symbol, value, own)


def _defines(module_name: str, value: object) -> bool:
    """Whether a value comes from the module, its package or its accelerator (`_ssl` for `ssl`)."""
    origin = str(getattr(value, "__module__", None)).lstrip("_").partition(".")[0]
    # `open` is a builtin that claims to be from `io`.
    return origin == module_name.partition(".")[0] or (module_name, origin) == ("builtins", "io")


def _topics() -> Iterator[_Found]:
    # Half a megabyte of text, loaded only to build the corpus.
    from pydoc_data.topics import topics

    for label, text in topics.items():
        yield from _documented(_Name(f"topic:{label}", text, own=True), "topic", text)


def _members(names: Iterable[_Name]) -> Iterator[_Found]:
    for name in names:
        value = name.value
        if isinstance(value, type):
            if not _generated(value):
                yield from _documented(name, "class", value.__doc__)
        # An instance has the docstring of its class; only `random.choice` and `typing.Optional` have their own.
        elif value.__doc__ != type(value).__doc__:
            yield from _documented(name, "function", value.__doc__)


def _generated(cls: type) -> bool:
    """Whether the docstring of a class is only the signature generated by dataclass or namedtuple."""
    made = hasattr(cls, "__dataclass_fields__") or hasattr(cls, "_fields")
    return made and (cls.__doc__ or "").startswith(f"{cls.__name__}(")


def _methods(names: Iterable[_Name]) -> Iterator[_Found]:
    """The methods of public classes, including those of their private bases."""
    classes = [(name, name.value) for name in names if isinstance(name.value, type)]
    public = {cls for name, cls in classes if name.symbol.endswith(cls.__name__)}
    for name, cls in classes:
        others = {base for parent in cls.__mro__[1:] if parent in public for base in parent.__mro__}
        bases = [b for b in cls.__mro__ if b is cls or (b not in others and _defines(name.symbol, b))]
        # As in attribute lookup, the first base with an attribute hides it in the others.
        for attribute, value in ChainMap(*(dict(vars(base)) for base in bases)).items():
            routine = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
            if not attribute.startswith("_") and inspect.isroutine(routine):
                own = name.own and getattr(routine, "__name__", None) == attribute
                method = _Name(f"{name.symbol}.{attribute}", value, own)
                yield from _documented(method, "method", routine.__doc__)


def _documented(name: _Name, kind: str, doc: object) -> Iterator[_Found]:
    """The entry for a name, or none if its text is too short to be an answer."""
    if isinstance(doc, str) and len(doc.split()) >= _FEWEST_WORDS:
        yield _Found(name, kind, _ADDRESS.sub("", inspect.cleandoc(doc)).strip())


def _entry(found: _Found) -> Entry:
    symbol, text = found.name.symbol, found.text
    title = text.partition("\n")[0] if found.kind == "topic" else symbol + _signature(found)
    return Entry(symbol, title, text, found.kind)


def _signature(found: _Found) -> str:
    """The signature of a symbol, without annotations and without `self`."""
    value = found.name.value
    receiver = found.kind == "method" and not isinstance(value, staticmethod)
    called = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
    if not isinstance(called, type) and not inspect.isroutine(called):
        return ""
    try:
        signature = inspect.signature(called)
    except (AttributeError, TypeError, ValueError):  # functions written in C may have none, or an incomplete one
        return ""
    parameters = [p.replace(annotation=p.empty, default=_shown(p)) for p in signature.parameters.values()]
    return str(inspect.Signature(parameters[1:] if receiver else parameters))


def _shown(parameter: inspect.Parameter) -> object:
    value = parameter.default
    if type(value) in (type(None), bool, int, float, bytes) or value is parameter.empty:
        return value
    # The install scheme, a default in sysconfig, differs in a virtual environment.
    if type(value) is str and value != sysconfig.get_default_scheme() and not Path(value).is_absolute():
        return value
    return _Elided()
