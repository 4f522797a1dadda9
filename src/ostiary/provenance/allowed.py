"""What a pickle of weights may name, what of it may be called, and with which arguments.

The list is short on purpose: tensors, their storages and number types, NumPy arrays of numbers, and the containers
around them. Arguments are looked at as well, since `_codecs.encode(text, 'latin1')` is how protocol 2 writes bytes
while another codec imports a module, and a tensor that is larger than its storage has overwritten memory in torch.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from ostiary.provenance.opcodes import Opaque

MAX_DIMS = 64
MAX_VALUES = 2**48


@dataclass(frozen=True, slots=True)
class Global:
    """A function, class or constant by its full name."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage of `numel` values of `width` bytes under a key of the archive."""

    key: str
    kind: str
    width: int
    numel: int


@dataclass(frozen=True, slots=True)
class Made:
    """What a call or a container opcode gives: its kind, and the width in bytes of a number type."""

    kind: str
    width: int = 0


class Odd(Exception):
    """Arguments that no program that saves weights gives: the code of the reason, and what is odd."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


_STORAGE_WIDTHS = {
    "Double": 8,
    "Float": 4,
    "Half": 2,
    "BFloat16": 2,
    "Long": 8,
    "Int": 4,
    "Short": 2,
    "Char": 1,
    "Byte": 1,
    "Bool": 1,
    "ComplexDouble": 16,
    "ComplexFloat": 8,
}
STORAGES = {f"torch.{name}Storage": width for name, width in _STORAGE_WIDTHS.items()}
STORAGES |= {name.replace("torch.", "torch.cuda."): width for name, width in STORAGES.items()}
STORAGES["torch.storage.UntypedStorage"] = 1

DTYPES = {
    **dict.fromkeys(("torch.float64", "torch.int64", "torch.uint64", "torch.complex64"), 8),
    **dict.fromkeys(("torch.float32", "torch.int32", "torch.uint32"), 4),
    **dict.fromkeys(("torch.float16", "torch.bfloat16", "torch.int16", "torch.uint16"), 2),
    **dict.fromkeys(("torch.int8", "torch.uint8", "torch.bool", "torch.float8_e4m3fn", "torch.float8_e5m2"), 1),
    **dict.fromkeys(("torch.float8_e4m3fnuz", "torch.float8_e5m2fnuz", "torch.float8_e8m0fnu"), 1),
    "torch.complex128": 16,
}


def _need(holds: bool, what: str, code: str = "OS118") -> None:
    if not holds:
        raise Odd(code, what)


def sizes(value: object) -> tuple[int, ...]:
    """`value` as a tuple of sizes or strides. Raises Odd for anything else."""
    if not isinstance(value, tuple) or len(value) > MAX_DIMS:
        raise Odd("OS118", "a shape that is no short tuple")
    found = tuple(one for one in value if type(one) is int and 0 <= one <= MAX_VALUES)
    _need(len(found) == len(value), "a shape that is not all whole numbers")
    return found


def _reach(storage: object, offset: object, shape: object, strides: object, width: int) -> Made:
    """A tensor on a storage; all its values must lie within."""
    if not isinstance(storage, Storage):
        raise Odd("OS118", "a tensor without a storage")
    size, stride = sizes(shape), sizes(strides)
    _need(len(size) == len(stride), "a shape and strides of different lengths")
    if type(offset) is not int or not 0 <= offset <= MAX_VALUES:
        raise Odd("OS118", "an offset that is no whole number")
    room = storage.numel * storage.width // width
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    inside = offset <= room if 0 in size else last < room
    _need(inside, f"a tensor that begins at {offset} leaves its storage of {room} values", "OS124")
    _need(math.prod(size) <= room, "a tensor claims more values than the file holds", "OS124")
    _need(math.prod(max(n, 1) for n in size) <= MAX_VALUES, "the sizes of an empty tensor are too large", "OS124")
    return Made("tensor")


def _tensor(args: tuple[object, ...]) -> Made:
    _need(len(args) == 4, f"{len(args)} arguments in place of 4")
    return _reach(args[0], args[1], args[2], args[3], getattr(args[0], "width", 1))


def _extras(flag: object, hooks: object, rest: tuple[object, ...]) -> None:
    _need(isinstance(flag, bool), "requires_grad that is neither true nor false")
    _need(hooks is None or hooks == Made("ordered dict"), "hooks")
    _need(all(one is None or (isinstance(one, Made) and one.kind == "dict") for one in rest), "odd metadata")


def _tensor_v2(args: tuple[object, ...]) -> Made:
    _need(len(args) in (6, 7), f"{len(args)} arguments in place of 6 or 7")
    _extras(args[4], args[5], args[6:])
    return _tensor(args[:4])


def _tensor_v3(args: tuple[object, ...]) -> Made:
    _need(len(args) in (7, 8), f"{len(args)} arguments in place of 7 or 8")
    _extras(args[4], args[5], args[7:])
    kind = args[6]
    width = DTYPES.get(kind.name) if isinstance(kind, Global) else None
    if width is None:
        raise Odd("OS118", "a tensor of an unknown number type")
    return _reach(args[0], args[1], args[2], args[3], width)


def _parameter(args: tuple[object, ...]) -> Made:
    _need(len(args) == 3 and args[0] == Made("tensor"), "a parameter that is no tensor")
    _extras(args[1], args[2], ())
    return Made("tensor")


def _only(kind: str, *forms: tuple[type, ...]) -> Callable[[tuple[object, ...]], Made]:
    """A callable whose arguments must be of one of `forms`, which are tuples of types."""

    def check(args: tuple[object, ...]) -> Made:
        fits = any(len(args) == len(form) and all(map(isinstance, args, form)) for form in forms)
        _need(fits, f"{len(args)} arguments of other types than weights have")
        return Made(kind)

    return check


def _size(args: tuple[object, ...]) -> tuple[int, ...]:
    _need(len(args) == 1, "a size of several arguments")
    return sizes(args[0])


def _encode(args: tuple[object, ...]) -> Opaque:
    _need(len(args) == 2 and args[1] in ("latin1", "latin-1"), "a codec other than latin1")
    text = args[0]
    if isinstance(text, str):
        _need(all(ord(one) < 256 for one in text), "text that is not latin1")
        return Opaque(len(text))
    _need(isinstance(text, Opaque), "bytes that are no text")
    return Opaque(-1)


def _dtype(args: tuple[object, ...]) -> Made:
    code = args[0] if args else None
    code = code.decode("latin-1") if isinstance(code, bytes) else code
    _need(len(args) == 3 and isinstance(code, str), "a number type of another form")
    found = re.fullmatch(r"[<>|=]?(?:b1|[iu][1248]|f[248]|c(?:8|16))", str(code))
    _need(found is not None, f"NumPy type {str(code)[:20]!r}, which is no plain number")
    _need(all(one in (0, 1) for one in args[1:] if isinstance(one, int)), "a number type with odd flags")
    return Made("dtype", int(str(code).lstrip("<>|=biufc")))


def _array(args: tuple[object, ...]) -> Made:
    begins = len(args) == 3 and args[0] == Global("numpy.ndarray") and args[1] == (0,)
    _need(begins and (isinstance(args[2], Opaque) or args[2] in (b"b", "b")), "an array of another form")
    return Made("new array")


def _filled(raw: object, kind: object, shape: object) -> None:
    """Whether raw values are as many as shape and number type say, as far as their length is known."""
    if not isinstance(kind, Made) or kind.kind != "dtype":
        raise Odd("OS118", "an array without a number type")
    length = raw.size if isinstance(raw, Opaque) else len(raw) if isinstance(raw, bytes) else None
    if length is None:
        raise Odd("OS118", "an array whose values are no bytes")
    claimed = math.prod(sizes(shape)) * kind.width
    _need(length in (-1, claimed), f"an array claims {claimed} bytes and has {length}", "OS124")
    _need(claimed <= MAX_VALUES, "an array claims more values than a file holds", "OS124")


def _from_buffer(args: tuple[object, ...]) -> Made:
    _need(len(args) == 4 and args[3] in ("C", "F"), "a buffer of another form")
    _filled(args[0], args[1], args[2])
    return Made("array")


def _scalar(args: tuple[object, ...]) -> Made:
    _need(len(args) == 2, "a number of another form")
    _filled(args[1], args[0], ())
    return Made("number")


def array_state(state: object) -> None:
    """Check what BUILD gives a new array: version, shape, number type, order, values. Raises Odd."""
    if not isinstance(state, tuple) or len(state) != 5 or state[0] != 1 or not isinstance(state[3], bool):
        raise Odd("OS118", "the state of an array has another form")
    _filled(state[4], state[2], state[1])


def dtype_state(state: object) -> None:
    """Check what BUILD gives a number type: the byte order and nothing else. Raises Odd."""
    order = state[1] if isinstance(state, tuple) and len(state) == 8 else None
    plain = isinstance(state, tuple) and state[0] == 3 and state[2:] == (None, None, None, -1, -1, 0)
    _need(plain and order in ("<", ">", "|", "=", b"<", b">", b"|", b"="), "the state of a number type is not plain")


CALLABLES: dict[str, Callable[[tuple[object, ...]], object]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "torch.device": _only("device", (str,), (str, int)),
    "collections.OrderedDict": _only("ordered dict", ()),
    "_codecs.encode": _encode,
    "numpy.dtype": _dtype,
}
for _builtins in ("builtins", "__builtin__"):
    CALLABLES[f"{_builtins}.set"] = _only("set", (), (Made,))
    CALLABLES[f"{_builtins}.bytearray"] = _only("bytes", (), (bytes,), (Opaque,))
    CALLABLES[f"{_builtins}.bytes"] = _only("bytes", ())
    CALLABLES[f"{_builtins}.complex"] = _only("number", (float, float))
for _core in ("numpy.core", "numpy._core"):
    CALLABLES[f"{_core}.multiarray._reconstruct"] = _array
    CALLABLES[f"{_core}.multiarray.scalar"] = _scalar
    CALLABLES[f"{_core}.numeric._frombuffer"] = _from_buffer

NAMES = frozenset({*CALLABLES, *STORAGES, *DTYPES, "numpy.ndarray"})
"""Everything that may be named; only `CALLABLES` may be called."""


def storage(pid: object, *, legacy: bool) -> Storage:
    """The storage that a persistent id means: (storage, type, key, device, values), and a view of None if `legacy`.

    Raises Odd for any other id.
    """
    if not isinstance(pid, tuple) or len(pid) != (6 if legacy else 5) or pid[0] != "storage":
        raise Odd("OS116", "a persistent id that is no storage")
    _, kind, key, device, numel = pid[:5]
    width = STORAGES.get(kind.name) if isinstance(kind, Global) else None
    texts = isinstance(key, str) and isinstance(device, str) and re.fullmatch(r"[0-9]{1,20}", key)
    sized = type(numel) is int and 0 <= numel <= MAX_VALUES
    if width is None or not texts or not sized or pid[5:] not in ((), (None,)):
        raise Odd("OS116", "a storage of another form than torch.save writes")
    return Storage(key, kind.name, width, numel)
