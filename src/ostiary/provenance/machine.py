"""A pickle run on paper: every opcode moves symbols about, nothing is imported or called.

Each name is the one that an unpickler would use at that point, through its stack and its memo; a name that is not
written in the stream is refused. All reasons of a stream are collected, up to the point where it breaks.
"""

from dataclasses import dataclass, field
from typing import Any

from ostiary.provenance import allowed
from ostiary.provenance.allowed import Global, Made, Odd, Storage
from ostiary.provenance.opcodes import NEWEST, Broken, Buffer, steps
from ostiary.provenance.refusal import Reason

MAX_OPCODES = 1_000_000
MAX_STACK = 500_000
MAX_MEMO = 1_000_000
MAX_MARKS = 1_000
MAX_REASONS = 50
MAX_NAME = 200

_MARK = object()
_UNKNOWN = Made("unknown")

_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY = {"EMPTY_LIST": "list", "EMPTY_DICT": "dict", "EMPTY_SET": "set"}
_GROUPS = {"LIST": "list", "DICT": "dict", "FROZENSET": "set"}
_TAKES = {
    "APPEND": ("list",),
    "APPENDS": ("list",),
    "SETITEM": ("dict", "ordered dict"),
    "SETITEMS": ("dict", "ordered dict"),
    "ADDITEMS": ("set",),
}
_SINGLE = {"APPEND": 1, "SETITEM": 2}


@dataclass(slots=True)
class Read:
    """What is in one pickle: where it ends, the object, every name, the storages by key, and reasons to refuse it."""

    end: int = 0
    value: object = _UNKNOWN
    globals: list[str] = field(default_factory=list)
    storages: dict[str, Storage] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)
    whole: bool = False


class Machine:
    """One pickle of `data` from `start` on; `storages` says whose persistent ids are expected: zip, legacy or none."""

    def __init__(self, data: Buffer, start: int, subject: str, storages: str = "none") -> None:
        self._data, self._start, self._subject, self._kind = data, start, subject, storages
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._marks = 0
        self._at = start
        self._frame = self._protocol = 0
        self._said: set[tuple[str, str]] = set()
        self.read = Read(end=start)

    def run(self) -> Read:
        """Read it to its STOP, or to where it breaks."""
        try:
            for number, (name, protocol, argument, at, end) in enumerate(steps(self._data, self._start)):
                if number >= MAX_OPCODES:
                    raise Broken("OS111", f"more than {MAX_OPCODES} opcodes", at)
                self._step(name, protocol, argument, at, end)
        except Broken as broken:
            if len(self.read.reasons) <= MAX_REASONS:
                self.read.reasons.append(broken.reason(self._subject))
        return self.read

    def _refuse(self, code: str, message: str) -> None:
        """Keep a reason, once each, until there are enough of them."""
        if (code, message) in self._said or len(self.read.reasons) >= MAX_REASONS:
            return
        self._said.add((code, message))
        self.read.reasons.append(Reason(code, self._subject, f"{message} at byte {self._at}"))

    def _step(self, name: str, protocol: int, argument: Any, at: int, end: int) -> None:
        self._at = at
        self.read.end = end
        if protocol > self._protocol and protocol > 1 and name != "PROTO":
            self._refuse("OS121", f"{name} is of protocol {protocol}, the stream of {self._protocol}")
        if self._frame:
            if end > self._frame:
                self._refuse("OS121", f"{name} crosses the end of its frame")
            if end >= self._frame:
                self._frame = 0
        handler = _HANDLERS.get(name)
        if handler is None:
            self._push(argument)  # a number, a text or bytes
        else:
            handler(self, name, argument)

    # Stack.

    def _push(self, value: object) -> None:
        if len(self._stack) >= MAX_STACK:
            raise Broken("OS111", f"more than {MAX_STACK} objects on the stack", self._at)
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise Broken("OS120", "the stack has too few objects", self._at)
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise Broken("OS120", "no mark on the stack", self._at)
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
        found = self._stack[at + 1 :]
        del self._stack[at:]
        self._marks -= 1
        return found

    def _literal(self, name: str, argument: object) -> None:
        self._push(_LITERALS[name])

    def _empty(self, name: str, argument: object) -> None:
        self._push(Made(_EMPTY[name]))

    def _get(self, name: str, argument: int) -> None:
        if argument not in self._memo:
            raise Broken("OS120", f"{name} of {argument}, which was never put", self._at)
        self._push(self._memo[argument])

    def _put(self, name: str, argument: int) -> None:
        index = len(self._memo) if name == "MEMOIZE" else argument
        if not self._stack or self._stack[-1] is _MARK:
            raise Broken("OS120", "nothing to remember", self._at)
        if index < 0 or len(self._memo) >= MAX_MEMO:
            raise Broken("OS111", f"more than {MAX_MEMO} remembered objects, or a negative number", self._at)
        self._memo[index] = self._stack[-1]

    # Opcodes.

    def _proto(self, name: str, argument: int) -> None:
        if self._at != self._start:
            self._refuse("OS121", "a protocol is declared in the middle")
        if argument > NEWEST:
            raise Broken("OS121", f"protocol {argument}, and the newest is {NEWEST}", self._at)
        self._protocol = argument

    def _new_frame(self, name: str, argument: int) -> None:
        if self._frame:
            self._refuse("OS121", "a frame within a frame")
        if argument > len(self._data) - self.read.end:
            raise Broken("OS120", "a frame is longer than the data", self._at)
        self._frame = self.read.end + argument

    def _stop(self, name: str, argument: object) -> None:
        self.read.value, self.read.whole = self._pop(), True
        if self._stack:
            self._refuse("OS121", "objects are left over at the end")

    def _mark(self, name: str, argument: object) -> None:
        if self._marks >= MAX_MARKS:
            raise Broken("OS111", f"nested deeper than {MAX_MARKS}", self._at)
        self._push(_MARK)
        self._marks += 1

    def _discard(self, name: str, argument: object) -> None:
        if name == "POP_MARK" or (self._stack and self._stack[-1] is _MARK):
            self._pop_to_mark()
        else:
            self._pop()

    def _dup(self, name: str, argument: object) -> None:
        value = self._pop()
        self._push(value)
        self._push(value)

    def _tuple(self, name: str, argument: object) -> None:
        if name == "TUPLE":
            self._push(tuple(self._pop_to_mark()))
            return
        parts = [self._pop() for _ in range(int(name[-1]))]
        self._push(tuple(reversed(parts)))

    def _group(self, name: str, argument: object) -> None:
        items = self._pop_to_mark()
        if name == "DICT" and len(items) % 2:
            raise Broken("OS120", "a dict with a key and no value", self._at)
        self._push(Made(_GROUPS[name]))

    def _take(self, name: str, argument: object) -> None:
        """Items put into a container."""
        items = [self._pop() for _ in range(_SINGLE[name])] if name in _SINGLE else self._pop_to_mark()
        if name == "SETITEMS" and len(items) % 2:
            raise Broken("OS120", "a key without a value", self._at)
        target = self._pop()
        self._push(target)
        if not isinstance(target, Made) or target.kind not in _TAKES[name]:
            self._refuse("OS119", f"{name} on {_said(target)}")

    def _name(self, name: str, argument: Any) -> None:
        if name == "GLOBAL":
            self._push(self._resolve(*argument))
            return
        attribute, module = self._pop(), self._pop()
        self._push(self._resolve(module, attribute))

    def _resolve(self, module: object, attribute: object) -> object:
        if not isinstance(module, str) or not isinstance(attribute, str):
            self._refuse("OS113", "a name that is not written in the file")
            return _UNKNOWN
        full = f"{module}.{attribute}"
        shown = ascii(full)[1:-1][:MAX_NAME]
        if "." in attribute:
            self._refuse("OS114", f"names {shown}")  # even one that reads like an allowed name
        elif full not in allowed.NAMES:
            self._refuse("OS112", f"names {shown}")
        if shown not in self.read.globals and len(self.read.globals) < MAX_REASONS:
            self.read.globals.append(shown)
        return Global(full)

    def _call(self, name: str, argument: Any) -> None:
        """A function or class called: REDUCE, NEWOBJ, NEWOBJ_EX, OBJ, INST."""
        if name == "INST":
            function = self._resolve(*argument)  # first, as some unpicklers import it before they miss the mark
            args = tuple(self._pop_to_mark())
        elif name == "OBJ":
            items = self._pop_to_mark()
            if not items:
                raise Broken("OS120", "OBJ without a class", self._at)
            function, args = items[0], tuple(items[1:])
        else:
            extra = self._pop() if name == "NEWOBJ_EX" else None
            args, function = self._pop(), self._pop()
            if extra is not None:
                self._refuse("OS117", "a call with named arguments")
        self._push(self._called(function, args))

    def _called(self, function: object, args: object) -> object:
        if not isinstance(function, Global) or function.name not in allowed.CALLABLES:
            self._refuse("OS117", f"calls {_said(function)}")
            return _UNKNOWN
        if not isinstance(args, tuple):
            self._refuse("OS118", f"calls {function.name} with arguments that are no tuple")
            return _UNKNOWN
        try:
            return allowed.CALLABLES[function.name](args)
        except Odd as odd:
            self._refuse(odd.code, f"{function.name}: {odd}")
            return _UNKNOWN

    def _build(self, name: str, argument: object) -> None:
        state, target = self._pop(), self._pop()
        result = target
        try:
            if target == Made("new array"):
                allowed.array_state(state)
                result = Made("array")
            elif isinstance(target, Made) and target.kind == "dtype":
                allowed.dtype_state(state)
            elif target != Made("ordered dict") or state != Made("dict"):
                raise Odd("OS119", f"state set on {_said(target)}")
        except Odd as odd:
            self._refuse(odd.code, str(odd))
        self._push(result)

    def _persistent(self, name: str, argument: object) -> None:
        pid = self._pop() if name == "BINPERSID" else argument
        found: Storage | None = None
        try:
            if self._kind == "none" or name != "BINPERSID":
                raise Odd("OS116", "a persistent id outside of a torch archive")
            found = allowed.storage(pid, legacy=self._kind == "legacy")
            if self.read.storages.setdefault(found.key, found) != found:
                raise Odd("OS116", f"two accounts of storage {found.key}")
        except Odd as odd:
            self._refuse(odd.code, str(odd))
        self._push(found or _UNKNOWN)

    def _extension(self, name: str, argument: object) -> None:
        self._refuse("OS115", f"extension code {argument}")
        self._push(_UNKNOWN)

    def _buffer(self, name: str, argument: object) -> None:
        self._refuse("OS125", f"{name} takes a buffer from outside")
        if name == "NEXT_BUFFER":
            self._push(_UNKNOWN)


def _said(value: object) -> str:
    """A symbol in words."""
    if isinstance(value, Global):
        return ascii(value.name)[1:-1][:MAX_NAME]
    return value.kind if isinstance(value, Made) else type(value).__name__.lower()


_METHODS = {
    "PROTO": "_proto",
    "FRAME": "_new_frame",
    "STOP": "_stop",
    "MARK": "_mark",
    "DUP": "_dup",
    **dict.fromkeys(_LITERALS, "_literal"),
    **dict.fromkeys(_EMPTY, "_empty"),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), "_put"),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), "_get"),
    **dict.fromkeys(("POP", "POP_MARK"), "_discard"),
    **dict.fromkeys(("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"), "_tuple"),
    **dict.fromkeys(_GROUPS, "_group"),
    **dict.fromkeys(_TAKES, "_take"),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), "_name"),
    **dict.fromkeys(("REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST"), "_call"),
    "BUILD": "_build",
    **dict.fromkeys(("PERSID", "BINPERSID"), "_persistent"),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), "_extension"),
    **dict.fromkeys(("NEXT_BUFFER", "READONLY_BUFFER"), "_buffer"),
}
_HANDLERS: dict[str, Any] = {name: vars(Machine)[method] for name, method in _METHODS.items()}
