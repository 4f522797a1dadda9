"""Hostile pickles: gadgets, each a function that can be misused, and streams that break a rule of the format."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ostiary.bench.hostile import FAMILIES, HostileFile
from ostiary.bench.hostile_pieces import (
    ORDERED,
    PROTO2,
    PROTO4,
    STOP,
    Raw,
    call,
    name,
    push,
    stack_name,
    storage,
    tensor,
    text,
)

# Functions by module with arguments that do no harm; published bypasses of scanners are among them.
_GADGETS: dict[str, dict[str, tuple[Any, ...]]] = {
    "builtins": {
        "eval": ("1",),
        "exec": ("pass",),
        "compile": ("1", "kit", "eval"),
        "print": ("kit",),
        "getattr": (1, "real"),
        "__import__": ("json",),
        "globals": (),
        "vars": (),
        "map": (),
        "delattr": (),
    },
    "__builtin__": {"eval": ("1",), "apply": (), "execfile": ("/dev/null",), "file": ("/dev/null",)},
    "os": {
        "system": ("true",),
        "popen": ("true",),
        "getcwd": (),
        "putenv": ("KIT", "1"),
        "spawnlp": (0, "true", "true"),
    },
    "posix": {"system": ("true",), "getpid": ()},
    "nt": {"system": ("rem",)},
    "subprocess": {
        "Popen": (["true"],),
        "call": (["true"],),
        "check_output": (["true"],),
        "run": (["true"],),
        "getoutput": ("true",),
    },
    "_posixsubprocess": {"fork_exec": ()},
    "commands": {"getoutput": ("true",)},
    "importlib": {"import_module": ("json",), "reload": ()},
    "importlib.machinery": {"SourceFileLoader": ("kit", "/dev/null")},
    "runpy": {"run_module": ("json",), "run_path": ("/dev/null",), "_run_code": ("pass", {})},
    "pkgutil": {"resolve_name": ("os:getcwd",)},
    "pydoc": {"locate": ("os.getcwd",), "pipepager": ("kit", "true")},
    "pty": {"spawn": ("true",)},
    "code": {"InteractiveInterpreter": ()},
    "codeop": {"compile_command": ("1",)},
    "timeit": {"timeit": ("pass",), "main": (["-n1", "pass"],)},
    "cProfile": {"run": ("pass",), "runctx": ("pass", {}, {})},
    "profile": {"run": ("pass",)},
    "pdb": {"run": ("pass",)},
    "bdb": {"Bdb": ()},
    "trace": {"Trace": ()},
    "doctest": {"debug_script": ("pass",)},
    "idlelib.run": {"Executive": ()},
    "idlelib.pyshell": {"ModifiedInterpreter": ()},
    "lib2to3.pgen2.grammar": {"Grammar": ()},
    "marshal": {"loads": (b"N",)},
    "types": {"CodeType": (), "FunctionType": ()},
    "functools": {"partial": (Raw(name("builtins", "print")),), "reduce": ()},
    "operator": {"attrgetter": ("system",), "methodcaller": ("upper",), "itemgetter": (0,)},
    "itertools": {"starmap": ()},
    "ctypes": {"CDLL": (None,), "PyDLL": (None,)},
    "_ctypes": {"dlopen": (None,)},
    "webbrowser": {"open": ("about:blank",)},
    "urllib.request": {"urlopen": ("file:///dev/null",), "urlretrieve": ("file:///dev/null",)},
    "http.client": {"HTTPSConnection": ("localhost",)},
    "requests": {"get": ("http://localhost:9",)},
    "requests.api": {"get": ("http://localhost:9",)},
    "aiohttp.client": {"ClientSession": ()},
    "socket": {"create_connection": (("127.0.0.1", 9),), "socket": ()},
    "ssl": {"get_server_certificate": (("127.0.0.1", 9),)},
    "smtplib": {"SMTP": ()},
    "ftplib": {"FTP": ()},
    "xmlrpc.client": {"ServerProxy": ("http://localhost:9",)},
    "shutil": {"which": ("true",)},
    "tempfile": {"gettempdir": ()},
    "pathlib": {"Path": (".",)},
    "linecache": {"getline": ("/dev/null", 1)},
    "fileinput": {"input": ("/dev/null",)},
    "zipimport": {"zipimporter": ("/dev/null",)},
    "platform": {"popen": ("true",), "node": ()},
    "distutils.spawn": {"spawn": (["true"],)},
    "distutils.file_util": {"write_file": ("/dev/null", [])},
    "pip": {"main": (["--version"],)},
    "pip._internal": {"main": (["--version"],)},
    "ensurepip": {"_run_pip": (["--version"],)},
    "multiprocessing.util": {"spawnv_passfds": (b"true", [b"true"], ())},
    "threading": {"Thread": ()},
    "signal": {"getsignal": (2,)},
    "sys": {"setrecursionlimit": (1000,), "settrace": (None,)},
    "gc": {"get_objects": ()},
    "inspect": {"currentframe": ()},
    "logging.config": {"listen": ()},
    "uuid": {"_get_command_stdout": ("true",)},
    "sqlite3": {"connect": (":memory:",)},
    "copyreg": {"_reconstructor": (), "add_extension": ("json", "loads", 255)},
    "pickle": {"loads": (b"N.",), "Unpickler": ()},
    "_pickle": {"loads": (b"N.",)},
    "dill": {"loads": (b"N.",)},
    "cloudpickle": {"loads": (b"N.",)},
    "joblib": {"load": ("/dev/null",)},
    "pandas": {"read_pickle": ("/dev/null",)},
    "yaml": {"unsafe_load": ("1",)},
    "numpy": {"load": ("/dev/null",), "fromfile": ("/dev/null",)},
    "numpy.testing._private.utils": {"runstring": ("pass", {})},
    "numpy.f2py.crackfortran": {"getlincoef": ("1", {})},
    "numpy.distutils.exec_command": {"exec_command": ("true",)},
    "torch": {"load": ("/dev/null",), "_load_global_deps": ()},
    "torch.serialization": {"load": ("/dev/null",)},
    "torch.hub": {"load": ("kit", "kit"), "_get_torch_home": ()},
    "torch.utils.cpp_extension": {"load_inline": ("kit", "")},
    "torch.utils.collect_env": {"run": ("true",)},
    "torch.utils._config_module": {"ConfigModule": ()},
    "torch.utils.bottleneck.__main__": {"run_cprofile": ("pass", {})},
    "torch.jit.unsupported_tensor_ops": {"execWrapper": ("pass", {}, {})},
    "torch._dynamo.guards": {"GuardBuilder": ()},
    "torch.storage": {"_load_from_bytes": (b"",)},
    "torch._utils": {"_rebuild_sparse_tensor": ()},
    "transformers": {"pipeline": ("kit",)},
    "keras.models": {"load_model": ("/dev/null",)},
    "tensorflow": {"io": ()},
    "sklearn.linear_model": {"LinearRegression": ()},
    "__main__": {"Model": ()},
    "kit_module_that_nobody_has": {"Model": ()},
}


def gadgets(canary: Path) -> Iterator[HostileFile]:
    """One pickle for each function that can be misused, and three that create `canary` when they are run."""
    for module, functions in _GADGETS.items():
        for attribute, args in functions.items():
            stream = PROTO2 + call(module, attribute, *args) + STOP
            yield HostileFile(FAMILIES[0], f"{module}.{attribute}.pkl", stream, "OS112")
    for title, stream in {
        "canary-open": call("builtins", "open", str(canary), "w"),
        "canary-system": call("os", "system", f"touch '{canary}'"),
        "canary-exec": call("builtins", "exec", f"open({str(canary)!r}, 'w').close()"),
    }.items():
        yield HostileFile(FAMILIES[0], f"{title}.pkl", PROTO2 + stream + STOP, "OS112")
    dotted = {
        "build-class": ("builtins", "__build_class__.__self__.exec", ("pass",)),
        "touch": ("pathlib", "Path.touch", ()),
        "guards": ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression", ()),
        "transport": ("asyncio.unix_events", "_UnixSubprocessTransport._start", ()),
        "fromkeys": ("collections", "OrderedDict.fromkeys", (["a"],)),
        "like-an-allowed-one": ("numpy", "_core.multiarray._reconstruct", ()),
    }
    for title, (module, attribute, args) in dotted.items():
        stream = PROTO4 + stack_name(module, attribute) + push(args) + b"R" + STOP
        yield HostileFile(FAMILIES[0], f"dotted-{title}.pkl", stream, "OS114")


_GETCWD = name("os", "getcwd")
_LIST = b"](K\x01K\x02e"

# Each breaks one rule; the code that it was made for, and the stream.
_STREAMS: dict[str, tuple[str, bytes]] = {
    "text-protocol": ("OS112", b"cos\ngetcwd\n(tR."),
    "protocol-1": ("OS112", b"cos\ngetcwd\n)R."),
    "stack-global": ("OS112", PROTO4 + stack_name("os", "getcwd") + b")R."),
    "name-from-memo": ("OS112", PROTO4 + text("os") + b"\x940" + text("getcwd") + b"\x940h\x00h\x01\x93)R."),
    "name-by-dup": ("OS112", PROTO4 + text("this") + b"2\x93."),
    "inst": ("OS112", b"(ios\ngetcwd\n."),
    "obj": ("OS112", PROTO2 + b"(" + _GETCWD + b"o."),
    "newobj": ("OS112", PROTO2 + name("subprocess", "Popen") + push((["true"],)) + b"\x81."),
    "in-a-key": ("OS112", PROTO2 + b"}" + _GETCWD + b")RK\x01s."),
    "thrown-away": ("OS112", PROTO2 + _GETCWD + b")R0K\x01."),
    "named-not-called": ("OS112", PROTO2 + _GETCWD + b"."),
    "computed-name": ("OS113", PROTO4 + text("os") + call("_codecs", "encode", "getcwd", "latin1") + b"\x93)R."),
    "bytes-as-name": ("OS113", PROTO4 + push(b"os") + push(b"getcwd") + b"\x93)R."),
    "number-as-name": ("OS113", PROTO4 + b"K\x01K\x02\x93."),
    "extension-1": ("OS115", PROTO2 + b"\x82\x01."),
    "extension-2": ("OS115", PROTO2 + b"\x83\x01\x01."),
    "extension-4": ("OS115", PROTO2 + b"\x84\x01\x01\x01\x00."),
    "persistent-text": ("OS116", b"Pkit\n."),
    "persistent-object": ("OS116", PROTO2 + push(("storage", "kit")) + b"Q."),
    "storage-outside": ("OS116", PROTO2 + storage() + b"."),
    "calls-a-storage-type": ("OS117", PROTO2 + call("torch", "FloatStorage", 1) + STOP),
    "calls-a-number-type": ("OS117", PROTO2 + name("torch", "float32") + b")R."),
    "calls-a-result": ("OS117", PROTO2 + ORDERED + b")R."),
    "calls-a-text": ("OS117", PROTO2 + text("print") + b")R."),
    "named-arguments": ("OS117", PROTO4 + stack_name("collections", "OrderedDict") + b")}\x92."),
    "other-codec": ("OS118", PROTO2 + call("_codecs", "encode", "kit", "rot13") + STOP),
    "codec-module": ("OS118", PROTO2 + call("_codecs", "encode", "kit", "idna") + STOP),
    "objects-dtype": ("OS118", PROTO2 + call("numpy", "dtype", "O8", False, True) + STOP),
    "dtype-flags": (
        "OS118",
        PROTO2 + call("numpy", "dtype", "f8", False, True) + push((3, "<", None, None, None, -1, -1, 63)) + b"b.",
    ),
    "dtype-fields": (
        "OS118",
        PROTO2 + call("numpy", "dtype", "f8", False, True) + push((3, "<", None, ("a",), {}, 8, 8, 0)) + b"b.",
    ),
    "ordered-dict-of-a-call": ("OS118", PROTO2 + call("collections", "OrderedDict", 1) + STOP),
    "array-of-a-subclass": (
        "OS118",
        PROTO2 + call("numpy._core.multiarray", "_reconstruct", Raw(name("numpy", "dtype")), (0,), "b") + STOP,
    ),
    "state-of-a-list": ("OS119", PROTO2 + _LIST + b"}b."),
    "state-of-a-dict": ("OS119", PROTO2 + b"}}b."),
    "item-of-a-number": ("OS119", PROTO2 + b"K\x01K\x02K\x03s."),
    "append-to-a-dict": ("OS119", PROTO2 + b"}K\x01a."),
    "add-to-a-list": ("OS119", PROTO4 + b"](K\x01\x90."),
    "breaks-behind-the-payload": ("OS120", PROTO2 + _GETCWD + b")R\xff\xff."),
    "ends-behind-the-payload": ("OS120", PROTO2 + _GETCWD + b")R"),
    "text-beyond-the-end": ("OS120", PROTO2 + b"X\xff\x00\x00\x00kit."),
    "text-of-4-gigabytes": ("OS120", PROTO2 + b"X\xff\xff\xff\xffkit."),
    "line-without-end": ("OS120", PROTO2 + b"cos\ngetcwd"),
    "memo-never-put": ("OS120", PROTO2 + b"h\x07."),
    "stack-too-short": ("OS120", PROTO2 + b"R."),
    "no-mark": ("OS120", PROTO2 + b"t."),
    "odd-number": ("OS120", PROTO2 + b"I1_0\n."),
    "protocol-twice": ("OS121", PROTO2 + PROTO2 + b"N."),
    "protocol-9": ("OS121", b"\x80\x09N."),
    "newer-than-declared": ("OS121", PROTO2 + stack_name("collections", "OrderedDict") + b")R."),
    "crosses-its-frame": ("OS121", PROTO4 + b"\x95\x03" + bytes(7) + text("kit") + STOP),
    "left-over": ("OS121", PROTO2 + b"K\x01K\x02."),
    "bytes-behind": ("OS122", PROTO2 + ORDERED + STOP + b"\xffkit"),
    "zeros-behind": ("OS122", PROTO2 + ORDERED + STOP + bytes(512)),
    "second-pickle": ("OS123", PROTO2 + ORDERED + STOP + PROTO2 + _GETCWD + b")R."),
    "second-text-pickle": ("OS123", PROTO2 + ORDERED + STOP + b"cos\ngetcwd\n(tR."),
    "array-too-long": (
        "OS124",
        PROTO2
        + call("numpy._core.multiarray", "_reconstruct", Raw(name("numpy", "ndarray")), (0,), "b")
        + push(
            (
                1,
                (9,),
                Raw(call("numpy", "dtype", "f8", False, True)),
                False,
                Raw(call("_codecs", "encode", "k" * 8, "latin1")),
            )
        )
        + b"b.",
    ),
    "buffer": ("OS125", b"\x80\x05\x97."),
    "read-only-buffer": ("OS125", b"\x80\x05\x97\x98."),
    "deep": ("OS111", PROTO2 + b"(" * 2000 + b"t" * 2000 + STOP),
    "long-number": ("OS111", PROTO2 + b"\x8b" + (4096).to_bytes(4, "little") + b"\x01" * 4096 + STOP),
    "many-opcodes": ("OS111", PROTO2 + b"N0" * 500_001 + b"N."),
}
_TWINS = {"bytes-behind": "ordered.pkl", "zeros-behind": "ordered.pkl", "second-pickle": "ordered.pkl"} | {
    "array-too-long": "array.pkl",
    "crosses-its-frame": "framed.pkl",
    "deep": "nested.pkl",
    "dtype-flags": "dtype.pkl",
    "computed-name": "bytes.pkl",
}


def streams() -> Iterator[HostileFile]:
    """Pickles that break a rule of the format, hide a name, or do what no weights need."""
    for title, (code, stream) in _STREAMS.items():
        yield HostileFile(FAMILIES[1], f"{title}.pkl", stream, code, _TWINS.get(title))


def tensor_streams() -> dict[str, tuple[str, bytes]]:
    """Objects for a torch archive whose tensors are wrong; the storage has four values."""
    return {
        "tensor-too-long": ("OS124", tensor(shape=(5,))),
        "tensor-starts-late": ("OS124", tensor(offset=3)),
        "tensor-strides-out": ("OS124", tensor(strides=(2,))),
        "tensor-expanded": ("OS124", tensor(shape=(2**40,), strides=(0,))),
        "empty-giant": ("OS124", tensor(shape=(0, 2**47, 2**47), strides=(0, 0, 0))),
        "storage-too-long": ("OS124", tensor(storage(numel=2**40))),
        "storage-missing": ("OS124", tensor(storage("9"))),
        "negative-size": ("OS118", tensor(shape=(-4,))),
        "shape-of-text": ("OS118", tensor(shape=("4",))),
        "tensor-of-a-number": ("OS118", tensor(push(3))),
        "hook": ("OS118", tensor()[: -len(ORDERED) - 2] + name("collections", "OrderedDict") + b"tR"),
        "item-of-a-tensor": ("OS119", tensor() + b"K\x00K\x01s"),
        "state-of-a-tensor": ("OS119", tensor() + b"}b"),
        "storage-by-other-name": ("OS116", tensor(storage("../0"))),
        "storage-of-a-strange-type": (
            "OS116",
            tensor(push(("storage", Raw(name("torch", "Size")), "0", "cpu", 4)) + b"Q"),
        ),
        "storage-twice": ("OS116", tensor() + b"0" + tensor(storage(numel=2), shape=(2,))),
        "persistent-text-inside": ("OS116", b"Pkit\n"),
    }
