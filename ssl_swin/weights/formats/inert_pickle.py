"""What a pickle holds, without running any of it.

A stack machine over the opcodes that `pickletools` lists. Plain containers and values and tensors
are restored. An object of any other class becomes an `Inert`: the name of its class, and the items
or attributes that the file gives it. No class or function that a pickle names is ever looked up, so
that nothing of it can run. What would be a call of anything but a known kind of data is reported.
"""

import pickletools
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from typing import IO, Any

import torch
from torch import Tensor

# Modules of Python's own library whose classes hold data and do nothing.
_DATA_MODULES = frozenset(
    "abc argparse collections dataclasses datetime decimal enum fractions ipaddress numbers "
    "pathlib string typing uuid zoneinfo".split()
)
_DATA_TYPES = frozenset(
    [f"builtins.{name}" for name in "bool bytearray bytes complex dict float frozenset".split()]
    + [f"builtins.{name}" for name in "int list object range set slice str tuple type".split()]
    + ["types.SimpleNamespace", "types.NoneType"]
)
# Names that pickles of data call to restore a value; here the call is not made.
_DATA_CALLS = (
    "collections.Counter",
    "collections.defaultdict",
    "collections.deque",
    "copyreg._reconstructor",
    "datetime.date",
    "datetime.datetime",
    "datetime.time",
    "datetime.timedelta",
    "datetime.timezone",
    "decimal.Decimal",
    "fractions.Fraction",
    "numpy.*core.multiarray._reconstruct",
    "numpy.*core.multiarray.scalar",
    "numpy.*core.numeric._frombuffer",
    "numpy.dtype",
    "numpy.random._pickle.__*_ctor",
    "pathlib.*Path",
    "pathlib._local.*Path",
    "re._compile",
    "torch._utils._rebuild_meta_tensor_no_storage",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_sparse_tensor",
    "torch._utils._rebuild_wrapper_subclass",
    "torch.serialization._get_layout",
    "types.SimpleNamespace",
    "uuid.UUID",
    "zoneinfo.ZoneInfo",
    "zoneinfo.ZoneInfo._unpickle",
    *(f"builtins.{name}" for name in ("dict", "list", "range", "slice", "tuple")),
)
_OF_A_CLASS = ("builtins.getattr", "operator.getitem")  # a method's name, a type's parameters
_STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}
_STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_VALUES = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8".split()
)
_MIN_SUSPICIOUS_SIZE = 2**20  # elements of a tensor that may be a few elements, repeated


class Inert(dict[Any, Any]):
    """An object, class or function that is not restored.

    Its items are those of the object, or its attributes where it has no items.

    Attributes:
        name: Dotted name of the class or function.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __hash__(self) -> int:  # type: ignore[override]  # a pickle may use it as a key
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<{self.name}, not restored>"


class Storage:
    """The elements that tensors are views of.

    Attributes:
        content: Their bytes; a legacy file fills them in after it has named them.
        dtype: Type of an element.
    """

    def __init__(self, content: bytearray, dtype: torch.dtype) -> None:
        self.content = content
        self.dtype = dtype


class _Name(Inert):
    """A name that the pickle refers to; nothing has been made of it yet."""


class PickleReader:
    """Restores one pickle.

    Attributes:
        refused: Names of what the pickle would call, or refers to for no good reason.
    """

    def __init__(self, file: IO[bytes], storage: Callable[[torch.dtype, Any], Storage]) -> None:
        """Sets the machine up.

        Args:
            file: At the first opcode; after `read` just behind the last.
            storage: Finds the storage of a type of elements and a persistent id.
        """
        self.refused: list[str] = []
        self._file = file
        self._storage = storage
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        """Returns the object.

        Raises:
            ValueError: If it is no pickle. What is damaged raises other errors too.
        """
        for opcode, argument, _ in pickletools.genops(self._file):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, argument)
        raise ValueError("the pickle has no end")

    def _step(self, opcode: str, argument: Any) -> None:
        if opcode in _VALUES:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode])
        elif opcode in _EMPTY:
            self._stack.append(_EMPTY[opcode]())
        elif opcode not in ("PROTO", "FRAME"):
            step = getattr(self, f"_{opcode.lower()}", None)
            if step is None:
                raise ValueError(f"the opcode {opcode} is not known")
            step(argument) if opcode in _WITH_ARGUMENT else step()

    # The stack.

    def _mark(self) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _dup(self) -> None:
        self._stack.append(self._stack[-1])

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    _binput = _long_binput = _put

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _binget = _long_binget = _get

    # Containers.

    def _tuple(self) -> None:
        self._append_new(tuple(self._pop_mark()))

    def _tuple1(self) -> None:
        self._stack[-1:] = [tuple(self._stack[-1:])]

    def _tuple2(self) -> None:
        self._stack[-2:] = [tuple(self._stack[-2:])]

    def _tuple3(self) -> None:
        self._stack[-3:] = [tuple(self._stack[-3:])]

    def _list(self) -> None:
        self._append_new(self._pop_mark())

    def _frozenset(self) -> None:
        self._append_new(frozenset(self._pop_mark()))

    def _dict(self) -> None:
        items = self._pop_mark()
        self._append_new(dict(zip(items[::2], items[1::2], strict=True)))

    def _append_new(self, value: Any) -> None:
        self._stack.append(value)

    def _append(self) -> None:
        self._extend([self._stack.pop()])

    def _appends(self) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            target.extend(items)
        elif not isinstance(target, Inert):
            raise ValueError(f"cannot append to a {type(target).__name__}")

    def _additems(self) -> None:
        items = self._pop_mark()
        target = self._stack[-1]
        if type(target) is set:
            target.update(items)
        elif not isinstance(target, Inert):
            raise ValueError(f"cannot add to a {type(target).__name__}")

    def _setitem(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _setitems(self) -> None:
        self._set(self._pop_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise ValueError(f"cannot set items of a {type(target).__name__}")
        target.update(zip(items[::2], items[1::2], strict=True))

    # What would look something up, or call it.

    def _global(self, pair: str) -> None:
        module, _, name = pair.partition(" ")
        self._stack.append(self._named(module, name))

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(self._named(module, name))

    def _named(self, module: str, name: str) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name is no text")
        if (module, name) in NAME_MAPPING:
            module, name = NAME_MAPPING[module, name]
        module = IMPORT_MAPPING.get(module, module)
        full = f"{module}.{name}"
        if module in _STORAGE_MODULES and name in _STORAGES:
            return _STORAGES[name]
        if full in _DTYPES:
            return _DTYPES[full]
        if not _may_be_referred_to(module, full):
            self._refuse(full)
        return _Name(full)

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self._called(function, tuple(arguments)))

    def _called(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        name = function.name if isinstance(function, Inert) else repr(function)
        if type(function) is _Name and name in _CALLS:
            return _CALLS[name](*arguments)
        if type(function) is _Name and name == "torch._tensor._rebuild_from_type_v2":
            return self._called(arguments[0], tuple(arguments[2]))
        result = Inert(name)
        of_a_class = name in _OF_A_CLASS and arguments and isinstance(arguments[0], Inert)
        if of_a_class:
            result = Inert(f"{arguments[0].name}.{arguments[1]}")
        elif type(function) is not _Name or not any(fnmatch(name, each) for each in _DATA_CALLS):
            self._refuse(name)
        elif name == "collections.Counter" and arguments and isinstance(arguments[0], dict):
            result.update(arguments[0])
        return result

    def _newobj(self) -> None:
        _, cls = self._stack.pop(), self._stack.pop()
        self._stack.append(self._new(cls))

    def _newobj_ex(self) -> None:
        self._stack.pop()
        self._newobj()

    def _new(self, cls: Any) -> Any:
        name = cls.name if isinstance(cls, Inert) else repr(cls)
        if type(cls) is not _Name:
            self._refuse(name)
        return Inert(name)

    def _inst(self, pair: str) -> None:
        arguments = self._pop_mark()
        module, _, name = pair.partition(" ")
        self._stack.append(self._called(self._named(module, name), tuple(arguments)))

    def _obj(self) -> None:
        cls, *arguments = self._pop_mark()
        self._stack.append(self._called(cls, tuple(arguments)))

    def _build(self) -> None:
        """Fills an inert object that has no items; what else has attributes does not need them."""
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Inert) and not target:
            for part in state if isinstance(state, tuple) else (state,):
                if isinstance(part, dict):
                    target.update(part)

    def _binpersid(self) -> None:
        self._persid(self._stack.pop())

    def _persid(self, identity: Any) -> None:
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise ValueError("the pickle refers to something other than a storage")
        dtype = identity[1]
        if not isinstance(dtype, torch.dtype):
            raise ValueError("a storage has no type of elements")
        self._stack.append(self._storage(dtype, identity))

    def _refuse(self, name: str) -> None:
        if name not in self.refused:
            self.refused.append(name)


_WITH_ARGUMENT = frozenset(
    "PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET GLOBAL INST PERSID".split()
)


def _may_be_referred_to(module: str, full: str) -> bool:
    """Returns whether a name may stand in a pickle of data, uncalled.

    What other packages define may: it is never looked up. Of Python's own library, data alone.
    """
    root = module.partition(".")[0]
    if root not in sys.stdlib_module_names or root in _DATA_MODULES or full in _DATA_TYPES:
        return True
    return full in _CALLS or full in _OF_A_CLASS or any(fnmatch(full, c) for c in _DATA_CALLS)


def _tensor(
    storage: Storage, offset: int, size: Any, stride: Any, *rest: Any, dtype: Any = None
) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor has no storage")
    kind = storage.dtype if dtype is None else dtype
    content = storage.content
    elements = torch.frombuffer(content, dtype=kind) if content else torch.empty(0, dtype=kind)
    view = torch.as_strided(elements, tuple(size), tuple(stride), offset)  # checks its bounds
    if view.numel() > max(elements.numel(), _MIN_SUSPICIOUS_SIZE):
        raise ValueError(f"a tensor of shape {tuple(size)} repeats {elements.numel()} elements")
    return view


def _tensor_of_type(
    storage: Storage,
    offset: int,
    size: Any,
    stride: Any,
    grad: Any,
    hooks: Any,
    dtype: Any,
    *_: Any,
) -> Tensor:
    return _tensor(storage, offset, size, stride, dtype=dtype)


def _first(value: Any, *_: Any) -> Any:
    return value


def _as_bytes(text: Any, *_: Any) -> bytes:
    return str(text).encode("latin1")


def _ordered(items: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict(items)


_CALLS: Mapping[str, Callable[..., Any]] = {
    "_codecs.encode": _as_bytes,
    "builtins.bytearray": lambda *arguments: b"",
    "builtins.complex": lambda *arguments: complex(*map(float, arguments)),
    "builtins.frozenset": lambda items=(): frozenset(items),
    "builtins.set": lambda items=(): set(items),
    "collections.OrderedDict": _ordered,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch.device": lambda *parts: ":".join(map(str, parts)),
}
