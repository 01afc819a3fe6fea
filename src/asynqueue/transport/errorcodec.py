"""Turn errors into payloads and back: the error itself, its traceback as text, and the frames of its traceback.

`dumpError` never raises, and always returns a payload that `loadError` can read, whatever the error does when it is
formatted or pickled. An error crosses in the first of these ways that brings an error of the same class and text:

1. It is pickled as it is (see `asynqueue.transport.pickler`).
2. It is pickled as Python does it, if a library has registered another way.
3. Its parts are pickled one by one: its class, its arguments and its attributes, and so are the errors in these (those
   of an exception group, say). So an error whose constructor has arguments of its own arrives as itself. What cannot be
   pickled is left out, and a note says so.
4. A `SerializationError` crosses in its place, with its name and text.

The error that arrives has a real traceback with the frames of the other process. Everything that prints an error
prints them: Twisted's `Failure`, the log, `traceback`. Its cause is a `RemoteTraceback`, which has the whole text.

Worker processes import this module: it imports neither attrs nor Twisted.
"""

from __future__ import annotations

import builtins
import copyreg
import io
import linecache
import pickle
import sys
import traceback
from collections.abc import Iterator
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, TracebackType
from typing import Any, TypeAlias

from asynqueue.core.protocol.messages import Payload
from asynqueue.core.text import className, cut, errorMessage, errorText, fullClassName, mroOf, namespaceOf, valueText
from asynqueue.errors import SerializationError
from asynqueue.transport.pickler import dumps
from asynqueue.transport.script.context import PROTOCOL
from asynqueue.transport.serialization import loads

TEXT_LENGTH = 100_000
"""The most characters of a traceback. A longer one is shortened in the middle."""

FRAMES = 100
"""The most frames of a traceback that cross: the first and the last ones."""

Frame: TypeAlias = tuple[str, int, str, str]
"""A file, the number of a line, the name of a function, and the source text of the line."""

# The descriptors of `BaseException` work where an error is frozen, or has an attribute of its own of such a name.
_CAUSE: Any = BaseException.__dict__["__cause__"]
_CONTEXT: Any = BaseException.__dict__["__context__"]
_TRACEBACK: Any = BaseException.__dict__["__traceback__"]
_ARGS: Any = BaseException.__dict__["args"]
_DICT: Any = BaseException.__dict__["__dict__"]

_GROUP: Any = getattr(builtins, "BaseExceptionGroup", None)  # Python 3.10 has none

_LEVELS = 8
"""How deep errors may be in parts of others to be pickled in parts."""

_SOURCES = 1000
_LINES = 100_000


class RemoteTraceback(Exception):
    """The traceback, as text, of an error that was raised elsewhere. It is the cause of the error as it arrives."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def dumpError(error: BaseException) -> bytes:
    """Return ERROR and its traceback as a payload. It never raises."""
    try:
        return _dumped(error)
    except BaseException:  # the memory is used up, say
        return _UNKNOWN


def loadError(payload: Payload) -> BaseException:
    """Return the error in PAYLOAD, with its traceback, or a `SerializationError`. It never raises an `Exception`."""
    try:
        match loads(payload, "the exception"):
            case (bytes(inner), str(name), str(message), str(text), list(frames)):
                pass
            case other:
                return SerializationError(f"an exception came out as {className(other)}")
    except SerializationError as failure:
        return failure
    try:
        error = pickle.loads(inner)
    except BaseException as refusal:  # Unpickling runs code of users, which may raise anything.
        what = f"the exception {name}, {message or 'without a text'}, cannot be unpickled"
        error = SerializationError(f"{what}: {errorText(refusal)}")
    if not issubclass(type(error), BaseException):
        error = SerializationError(f"the exception {name}, {message}, came out as {className(error)}")
    _CAUSE.__set__(error, RemoteTraceback(text))
    _TRACEBACK.__set__(error, _tracebackOf(frames))
    return error  # type: ignore[no-any-return]  # the class was checked


def tracebackText(error: BaseException) -> str:
    """Return ERROR with its traceback as text, in a plainer form if Python cannot format it. It never raises."""
    where = _TRACEBACK.__get__(error)
    try:
        return cut("".join(traceback.format_exception(type(error), error, where)), TEXT_LENGTH, "\n")
    except BaseException:  # attributes of the error, or of its causes, may raise anything
        pass
    lines = ["Traceback (most recent call last):\n"]
    try:
        lines += traceback.format_tb(where)
    except BaseException:
        pass
    return cut("".join([*lines, errorText(error), "\n"]), TEXT_LENGTH, "\n")


def _dumped(error: BaseException) -> bytes:
    where: TracebackType | None = _TRACEBACK.__get__(error)
    if issubclass(type(error), MemoryError):
        traceback.clear_frames(where)  # They may hold what has used up the memory.
    text, frames = tracebackText(error), _framesOf(where)
    name, message = fullClassName(error), errorMessage(error)
    refusal: BaseException | None = None
    for way in (dumps, _dumpsPlainly, _dumpsParts):
        try:
            inner = way(error)
            came = pickle.loads(inner)
            if type(came) is type(error) and (way is _dumpsParts or errorMessage(came) == message):
                return pickle.dumps((inner, name, message, text, frames), PROTOCOL)
            problem: BaseException = TypeError(f"it comes out as {errorText(came)}")
        except BaseException as raised:
            problem = raised
        if refusal is None:
            refusal = problem
    assert refusal is not None  # there are three ways
    why = f"the exception {name}, {message}, cannot be pickled: {errorText(refusal)}"
    inner = pickle.dumps(SerializationError(why), PROTOCOL)
    return pickle.dumps((inner, name, message, text, frames), PROTOCOL)


def _dumpsPlainly(obj: Any) -> bytes:
    """Return OBJ as bytes, with the errors in it pickled as Python does.

    A library may register another way, which sets attributes that an error does not let be set. tblib does so when
    Dask has been imported.
    """
    file = io.BytesIO()
    pickler = pickle.Pickler(file, PROTOCOL)
    others = {cls: reduce for cls, reduce in copyreg.dispatch_table.items() if not issubclass(cls, BaseException)}
    pickler.dispatch_table = others
    pickler.dump(obj)
    return file.getvalue()


# An error in parts.


class NotedText(str):
    """A text that is printed with a note."""

    note = ""

    def __str__(self) -> str:
        return f"{self[:]} ({self.note})"

    def __repr__(self) -> str:
        return repr(str(self))


def _dumpsParts(error: BaseException) -> bytes:
    """Return ERROR as bytes that make an error of its class, with the arguments and attributes that can be pickled."""
    return dumps(_partsOf(error, ()))


def _partsOf(error: BaseException, outer: tuple[BaseException, ...]) -> _Parts:
    """Return the parts of ERROR, which is in a part of the last of OUTER."""
    if len(outer) >= _LEVELS or any(error is each for each in outer):
        raise ValueError("it is in a part of itself, or too deep in parts of others")
    lost: list[str] = []
    outer += (error,)
    args = []
    for number, value in enumerate(_ARGS.__get__(error), 1):
        part = _dumpsPart(f"argument {number}", value, lost, outer)
        args.append(part if part is not None else pickle.dumps(valueText(value), PROTOCOL))
    members = [(name, _dumpsPart(name, value, lost, outer)) for name, value in _membersOf(error)]
    attributes = [(name, _dumpsPart(name, value, lost, outer)) for name, value in list(_DICT.__get__(error).items())]
    return _Parts(type(error), args, members, attributes, lost)


def _dumpsPart(name: str, value: Any, lost: list[str], outer: tuple[BaseException, ...]) -> bytes | None:
    """Return VALUE as bytes. If it cannot be pickled and unpickled, append to LOST which part it is, and why."""
    try:
        payload = dumps(value)
        pickle.loads(payload)
        return payload
    except BaseException as raised:  # Pickling runs code of users, which may raise anything.
        refusal = raised
    try:
        file = io.BytesIO()
        _PartsPickler(file, outer).dump(value)
        pickle.loads(file.getvalue())
        return file.getvalue()
    except BaseException:  # as above
        lost.append(f"{name}: {errorText(refusal)}")
        return None


class _PartsPickler(pickle.Pickler):
    """Pickles an object in a part of the last of OUTER, with each error in it in parts."""

    def __init__(self, file: io.BytesIO, outer: tuple[BaseException, ...]) -> None:
        super().__init__(file, PROTOCOL)
        self._outer = outer

    def reducer_override(self, obj: Any) -> Any:
        """Return how OBJ is pickled, if it is an error."""
        return _partsOf(obj, self._outer).__reduce__() if issubclass(type(obj), BaseException) else NotImplemented


def _membersOf(error: BaseException) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of ERROR that are not in its `__dict__`: those of slots, and of builtin errors."""
    for cls in mroOf(error):
        if cls is _GROUP:
            break  # its attributes are its arguments
        for name, member in list(namespaceOf(cls).items()):
            kinds = (MemberDescriptorType, GetSetDescriptorType) if cls is not BaseException else ()
            if type(member) in kinds and not name.startswith("__"):
                try:
                    value = member.__get__(error, type(error))
                except AttributeError:
                    continue  # it is not set
                if value is not None:
                    yield name, value


class _Parts:
    """The parts of an error, which are unpickled as that error."""

    def __init__(self, cls: type[BaseException], *parts: Any) -> None:
        self._parts = (cls, *parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, self._parts


def _rebuilt(
    cls: type[BaseException],
    args: list[bytes],
    members: list[tuple[str, bytes | None]],
    attributes: list[tuple[str, bytes | None]],
    lost: list[str],
) -> BaseException:
    """Return an error of CLS with ARGS. No constructor of the user's is called. LOST says which parts are missing."""
    values = [pickle.loads(part) for part in args]
    base: Any = next(kind for kind in type.__dict__["__mro__"].__get__(cls) if _isBuiltin(kind))
    error: BaseException
    try:
        error = base.__new__(cls, *values)
        base.__init__(error, *values)
    except Exception:  # A class derived from a builtin one may have other arguments than that.
        error = base.__new__(cls)
    _ARGS.__set__(error, tuple(values))
    own: dict[str, Any] = _DICT.__get__(error)
    for found, name, part in [(True, *a) for a in attributes] + [(False, *m) for m in members]:
        if part is None:
            continue
        try:
            value = pickle.loads(part)
        except BaseException as refusal:  # it comes out in the other process only
            lost = [*lost, f"{name}: {errorText(refusal)}"]
            continue
        if found:
            own[name] = value
            continue
        try:
            next(namespaceOf(kind) for kind in mroOf(error) if name in namespaceOf(kind))[name].__set__(error, value)
        except (AttributeError, TypeError):
            pass  # it cannot be set
    if lost:
        note = f"this error arrived without {'; '.join(lost)}"
        notes = own.get("__notes__")
        own["__notes__"] = [*notes, note] if isinstance(notes, list) else [note]
        if len(values) == 1 and type(values[0]) is str:  # Python and Twisted print this text and not the note
            noted = NotedText(values[0])
            noted.note = note
            _ARGS.__set__(error, (noted,))
    return error


def _isBuiltin(cls: type) -> bool:
    """Return whether CLS is an error class of Python itself that can make an object of any class derived from it."""
    return cls.__module__ == "builtins" and cls.__name__ != "ExceptionGroup"


# Tracebacks.


def _framesOf(where: TracebackType | None) -> list[Frame]:
    """Return the frames of traceback WHERE, without those of ours before the user's first."""
    frames: list[Frame] = []
    ours = True
    while where is not None:
        frame, line, where = where.tb_frame, where.tb_lineno, where.tb_next
        ours = ours and where is not None and str(frame.f_globals.get("__name__")).startswith("asynqueue.")
        if not ours:
            code = frame.f_code
            try:
                source = linecache.getline(code.co_filename, line, frame.f_globals).strip()
            except BaseException:  # A loader of the user's own may raise anything.
                source = ""
            frames.append((code.co_filename, line or 0, code.co_name, source[:1000]))
    half = FRAMES // 2
    return frames if len(frames) <= FRAMES else frames[:half] + frames[-half:]


def _getframe() -> Any:
    return sys._getframe()


def _tracebackOf(frames: list[Frame]) -> TracebackType | None:
    """Return a traceback with FRAMES. Each is the frame of a function with the name and the file of the other one."""
    where: TracebackType | None = None
    try:
        for filename, line, name, source in reversed(frames):
            code = _getframe.__code__.replace(co_filename=filename, co_name=name, co_firstlineno=max(line, 1))
            frame = FunctionType(code, {"sys": sys, "__name__": "remote"})()
            where = TracebackType(where, frame, -1, max(line, 1))
            _keepSource(filename, line, source)
    except (TypeError, ValueError, OverflowError):
        pass  # the frames are of no use, and the text is in the cause
    return where


_kept: dict[tuple[str, int], None] = {}


def _keepSource(filename: str, line: int, source: str) -> None:
    """Let `linecache` know SOURCE, the text of a line of a file, if the file is not here."""
    if not source or (filename, line) in _kept or not 0 < line < _LINES:
        return
    if len(_kept) >= _SOURCES:
        _kept.clear()
    _kept[filename, line] = None
    if linecache.getline(filename, line):
        return
    lines = linecache.getlines(filename)
    lines += ["\n"] * (line - len(lines))
    lines[line - 1] = f"{source}\n"
    linecache.cache[filename] = (sum(map(len, lines)), None, lines, filename)


_UNKNOWN = pickle.dumps(
    (
        pickle.dumps(SerializationError("an exception that could not be described"), PROTOCOL),
        "an exception",
        "",
        "(no traceback)\n",
        [],
    ),
    PROTOCOL,
)
"""The error to send when no other can be made. It is made beforehand, because the memory may be used up."""
