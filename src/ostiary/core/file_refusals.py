"""Codes of refusals for what is in a file: OS11x names and pickles, OS12x streams, OS13x zips, OS14x the rest."""

from ostiary.core.code import Code

_RESAVE = "ask its author for safetensors, or for a file saved anew by torch.save(model.state_dict(), ...)"
_AGAIN = "download it again and compare size and digest with those its author gives; do not use this copy"
_ATTACK = "do not load it with anything; ask where it comes from, and get the weights as safetensors"
_NONE = "none known: no program that saves weights writes this"


def _code(number: str, title: str, meaning: str, false_alarms: str, next_step: str) -> Code:
    return Code(number, title, meaning, "file inspection", false_alarms, next_step)


_NAMES_AND_PICKLES = (
    _code(
        "OS110",
        "name and content disagree",
        "The file's suffix promises one format and its bytes are of another, which a program that goes by the content "
        "would read all the same: a pickle named .safetensors runs where pickles are read.",
        "a file that was given the wrong suffix by mistake",
        "rename it to what it is, if you trust where it comes from, and inspect it again",
    ),
    _code(
        "OS111",
        "larger than the inspection allows",
        "A limit was exceeded: bytes, opcodes, depth, stored objects, members, header, nested wrappers. What lies "
        "beyond the limit was not looked at, so the file is refused.",
        "a very large checkpoint with millions of small tensors",
        _RESAVE,
    ),
    _code(
        "OS112",
        "names what weights do not need",
        "The pickle names a function or class that is not on the short list of what weights consist of. Unpickling "
        "would import it, and mostly call it: that is how a pickle runs a program.",
        "whole modules, optimisers or scikit-learn models that were pickled instead of their weights; sparse, "
        "quantised and nested tensors, which are not on the list either",
        _RESAVE,
    ),
    _code(
        "OS113",
        "name made up while loading",
        "The pickle imports something whose name is not written in it but computed or looked up while it is read, so "
        "that nobody can tell beforehand what it is.",
        _NONE,
        _ATTACK,
    ),
    _code(
        "OS114",
        "name with dots",
        "The pickle reaches an attribute of an attribute (`a.b.c`): from a harmless class that leads to any function "
        "of the interpreter.",
        "nested classes that were pickled whole",
        _ATTACK,
    ),
    _code(
        "OS115",
        "extension code",
        "The pickle names what it imports by a number of the extension registry of the program that reads it, so the "
        "file does not say what that is.",
        "programs of a company that registers codes for itself; none that saves weights does",
        _ATTACK,
    ),
    _code(
        "OS116",
        "persistent id that is no storage",
        "The pickle hands an object of its own to the program that reads it where only a torch archive has a use for "
        "that, or in another form than the storages of tensors have.",
        "pickles of programs that keep parts elsewhere (ZODB, spaCy)",
        _RESAVE,
    ),
    _code(
        "OS117",
        "calls what is not to be called",
        "The pickle calls a type, a value or the result of another call. Weights call a handful of functions that put "
        "tensors together, and nothing else.",
        "pickled objects of unusual classes",
        _RESAVE,
    ),
    _code(
        "OS118",
        "odd arguments",
        "A function that weights need is called with arguments that no program that saves weights gives it: another "
        "codec, another type of number, too few or too many.",
        "files of a torch or NumPy release that is far older or newer than this one",
        _RESAVE,
    ),
    _code(
        "OS119",
        "state set on what takes none",
        "The pickle sets attributes or items of something that is neither a list, a dict, a set, an ordered dict nor "
        "an array. That calls methods of that object, and has overwritten memory in torch before (CVE-2026-24747).",
        "pickled objects of unusual classes",
        _RESAVE,
    ),
)
_STREAMS = (
    _code(
        "OS120",
        "broken stream",
        "The pickle ends in the middle, or holds what is no opcode. A pickle is run while it is read: what stands "
        "before the break has run by then, which has hidden payloads from scanners (nullifAI).",
        "a download that broke off",
        _AGAIN,
    ),
    _code(
        "OS121",
        "against the rules of its protocol",
        "The pickle declares a protocol twice or not at the start, uses opcodes of a later one, crosses the ends of "
        "its frames or leaves objects over: readers differ in what they make of that.",
        _NONE,
        _ATTACK,
    ),
    _code(
        "OS122",
        "bytes after the end",
        "Bytes follow where the object ended. No reader of the object sees them, others may.",
        "padding of a transfer or a file system",
        _AGAIN,
    ),
    _code(
        "OS123",
        "second pickle after the end",
        "A second pickle follows where the first one ended. A program that reads twice runs it, and a scanner that "
        "stops at the first end does not see it.",
        "several objects that were pickled into one file on purpose",
        _RESAVE,
    ),
    _code(
        "OS124",
        "tensor beyond its bytes",
        "A tensor or array claims more values than the file holds, or a storage has another size than the object says. "
        "Readers have overwritten memory on that.",
        "a tensor that was expanded before it was saved",
        "ask its author to save it with .contiguous() or .clone(), or as safetensors",
    ),
    _code(
        "OS125",
        "buffer from outside",
        "The pickle takes a buffer that is not in the file: it is whatever the program that reads it hands over.",
        "pickles that were sent between processes",
        _RESAVE,
    ),
    _code(
        "OS126",
        "old torch layout out of order",
        "A file in torch's layout from before 2020 is five pickles and the values behind them; here some are missing, "
        "of another form, or of another length than the object says.",
        "a download that broke off",
        _AGAIN,
    ),
    _code(
        "OS127",
        "reading it failed",
        "The child process that reads the weights was stopped by a limit on its memory or time, died, did what it may "
        "not, or could not read them as weights only. Nothing was written.",
        "a model larger than this machine's memory; an object that is no state dict",
        "try a machine with more memory, or " + _RESAVE,
    ),
    _code(
        "OS128",
        "ill-formed array",
        "The header of a NumPy array is not what NumPy writes, or the values behind it have another length.",
        "arrays with named fields",
        _AGAIN,
    ),
)
_ZIPS = (
    _code(
        "OS130",
        "bytes before the archive",
        "Something stands in front of the zip archive. Programs that look at the start see one file, those that look "
        "at the end another.",
        "self-extracting archives",
        _ATTACK,
    ),
    _code(
        "OS131",
        "two accounts of one member",
        "A zip archive describes each member twice, and the two differ in name, size, flags, method or checksum. "
        "Scanners and loaders then read different bytes.",
        "archives written by a tool that is not torch and not NumPy",
        _ATTACK,
    ),
    _code(
        "OS132",
        "hidden bytes between members",
        "The archive holds bytes that belong to no member of its list, or members that overlap: a member left out of "
        "the list is still there for who looks for it.",
        "archives that were edited in place",
        _ATTACK,
    ),
    _code(
        "OS133",
        "one name twice",
        "Two members have the same name, or names that differ in case alone. Which of them is read depends on the "
        "program.",
        "archives that were appended to",
        _ATTACK,
    ),
    _code(
        "OS134",
        "encrypted member",
        "A member is marked as encrypted. Scanners skip it, and some loaders ignore the mark and read it.",
        "archives with a password",
        _RESAVE,
    ),
    _code(
        "OS135",
        "comment or bytes after the archive",
        "A comment or other bytes follow the archive's list of members.",
        "archives that other tools wrote a comment into",
        _AGAIN,
    ),
    _code(
        "OS136",
        "wrong checksum",
        "The bytes of a member do not have the checksum that the archive gives for them. Scanners stop at it; loaders "
        "that do not check go on.",
        "a damaged download or disk",
        _AGAIN,
    ),
    _code(
        "OS137",
        "member that weights do not have",
        "The archive holds a member that torch.save does not write, or that no tensor refers to: code, a second "
        "pickle, an unknown file.",
        "checkpoints into which someone put notes or a configuration",
        _RESAVE,
    ),
    _code(
        "OS138",
        "TorchScript",
        "The archive is a TorchScript program: it holds code, which runs when the model is used.",
        "none: such a file is meant to hold a program",
        _RESAVE,
    ),
    _code(
        "OS139",
        "packed member",
        "A member of a torch archive is compressed, or packed in a way that is not known here. torch.save stores all "
        "members as they are.",
        "archives that were packed anew by another tool",
        _RESAVE,
    ),
)
_REST = (
    _code(
        "OS140",
        "member name that leads elsewhere",
        "The name of a member is absolute, climbs out of its folder, or holds characters that no program that saves "
        "weights writes; unpacking it would write outside of the folder.",
        _NONE,
        _ATTACK,
    ),
    _code(
        "OS141",
        "damaged archive",
        "The list of members of a zip archive is missing, cut off or ill-formed.",
        "a download that broke off",
        _AGAIN,
    ),
    _code(
        "OS142",
        "compressed file",
        "The file is packed by gzip, xz, zlib, bzip2, lz4 or zstd. Weights are not; joblib and others unpack and "
        "unpickle in one step, and scanners that do not unpack see nothing. What could be unpacked was inspected too.",
        "files that were compressed for the transfer",
        "unpack it, if you trust where it comes from, and inspect what was in it",
    ),
    _code(
        "OS143",
        "archive in place of weights",
        "The file is a 7z, tar or rar archive. Such archives have carried pickles past scanners that cannot open them.",
        "weights of torch from before 2017, which are tar archives; folders packed for the transfer",
        "unpack it, if you trust where it comes from, and inspect each file in it",
    ),
    _code(
        "OS144",
        "unpacks without end",
        "The file or a member unpacks to more bytes than the limit, or to more than it says.",
        "very repetitive data in a compressed file",
        _AGAIN,
    ),
    _code(
        "OS145",
        "ill-formed header",
        "The header of a safetensors file is no JSON object of the stated length, is longer than the limit, or has "
        "metadata that is no text.",
        "a download that broke off",
        _AGAIN,
    ),
    _code(
        "OS146",
        "one key twice",
        "A key stands twice in the header of a safetensors file. Which of the two counts depends on the program.",
        _NONE,
        _AGAIN,
    ),
    _code(
        "OS147",
        "ill-formed tensor entry",
        "An entry in the header of a safetensors file has an unknown number type, a shape that is no list of sizes "
        "within the limits, or a length that does not follow from both.",
        "files of a newer release that knows more number types",
        _AGAIN,
    ),
    _code(
        "OS148",
        "tensors that do not tile the file",
        "The tensors of a safetensors file overlap, leave bytes between them that belong to none, or end before or "
        "after the file does.",
        "a download that broke off",
        _AGAIN,
    ),
    _code(
        "OS149",
        "array of Python objects",
        "A NumPy array holds Python objects, which are kept as a pickle: reading it unpickles.",
        "tables and ragged lists that were saved as arrays of objects",
        "save the values as an array of numbers",
    ),
)

FILE_REFUSALS: tuple[Code, ...] = (*_NAMES_AND_PICKLES, *_STREAMS, *_ZIPS, *_REST)
