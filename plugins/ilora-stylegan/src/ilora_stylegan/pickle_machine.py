"""Running a pickle's instructions without running anything else.

`pickletools` decodes the instructions; this module carries them out on plain values and the stand-ins of `pickle_nodes`. A name
is never imported and a call is never made: a few constructors that checkpoints need have a counterpart here (`pickle_builders`),
every other call becomes `Dead`. There is no recursion and nothing shared is expanded, so the work is bounded by the file:
one step and one small object per instruction, and copies are paid from an allowance of twice the file's size.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from ilora_stylegan.file_bytes import Reader
from ilora_stylegan.pickle_nodes import Broken, Dead, DType, Global, Record, StoredArray, check_key

__all__ = ["Builder", "Machine"]

Builder = Callable[["Machine", tuple[Any, ...]], Any]

_MOST_STEPS = 1_000_000  # the largest published checkpoints take about a fifth, discriminator included
_MOST_BITS = 4096
_NEWEST_PROTOCOL = 5
_SPARE = 1 << 16

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERAL = re.compile(r"(SHORT_)?(BIN)?(UNICODE|STRING|BYTES)8?|(BIN)?(INT|FLOAT)[12]?|LONG[14]?|BYTEARRAY8")
_ARGUMENTS = frozenset(opcode.name for opcode in pickletools.opcodes if _LITERAL.fullmatch(opcode.name))
_REFUSED = {
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), "an extension code, which only a running program could resolve"),
    **dict.fromkeys(("NEXT_BUFFER", "READONLY_BUFFER"), "a buffer that lies outside the file"),
}


class Machine:
    """builders: (module, name) -> what makes its counterpart. persistent: what resolves persistent ids; None refuses them."""

    def __init__(
        self,
        builders: Mapping[tuple[str, str], Builder],
        *,
        allowance: int,
        persistent: Callable[[Any], Any] | None = None,
    ):
        self.builders, self.persistent = builders, persistent
        self.allowance = 2 * allowance + _SPARE  # a storage's bytes are decoded once and read once
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, reader: Reader) -> Any:
        """The value of the pickle that starts at the reader's position. Raises Broken that names the instruction."""
        name, position = "the first instruction", reader.position
        try:
            for step, (opcode, argument, place) in enumerate(pickletools.genops(cast(Any, reader))):
                name, position = opcode.name, place
                if step >= _MOST_STEPS:
                    raise Broken(f"more than {_MOST_STEPS:,} instructions")
                if name == "STOP":
                    break
                self._step(name, argument)
            return self.stack.pop()
        except Exception as error:  # whatever a damaged pickle provokes means the same
            cause = str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}"
            raise Broken(f"byte {position}, at or after {name}: {cause[:200]}") from error

    def pay(self, amount: int) -> None:
        """For a copy of `amount` items or bytes. Raises Broken when copies exceed the size of the file."""
        self.allowance -= amount
        if self.allowance < 0:
            raise Broken("it copies the same contents over and over")

    def fill(self, array: StoredArray, state: Any) -> None:
        """Give an array its contents, which it shares with no other for free."""
        array.build(state)
        self.pay(array.nbytes)

    def call(self, what: Any, args: Any) -> Any:
        """The counterpart of a call, or a stand-in for its result. Raises Broken for what cannot be called."""
        if not isinstance(args, tuple):
            raise Broken("a call has no tuple of arguments")
        if isinstance(what, Dead):
            return Dead(what.what, args)
        if not isinstance(what, Global):
            raise Broken(f"a call of {type(what).__name__}, which is neither a class nor a function")
        builder = self.builders.get((what.module, what.name))
        return Dead(what, args) if builder is None else builder(self, args)

    def _step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _ARGUMENTS:
            if isinstance(argument, int) and argument.bit_length() > _MOST_BITS:
                raise Broken("an integer of absurd length")
            self.stack.append(argument)
        elif name in _REFUSED:
            raise Broken(_REFUSED[name])
        else:
            _STEPS[name](self, argument)

    def _above_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    # One method per kind of instruction; `argument` is what pickletools decoded.

    def _proto(self, argument: int) -> None:
        if argument > _NEWEST_PROTOCOL:
            raise Broken(f"pickle protocol {argument}; the newest known is {_NEWEST_PROTOCOL}")

    def _frame(self, argument: int) -> None:
        """Frames only help a reader to read ahead."""

    def _mark(self, argument: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _pop(self, argument: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._above_mark()

    def _pop_mark(self, argument: None) -> None:
        self._above_mark()

    def _dup(self, argument: None) -> None:
        self.stack.append(self.stack[-1])

    def _get(self, argument: int) -> None:
        if argument not in self.memo:
            raise Broken(f"nothing was remembered as number {argument}")
        self.stack.append(self.memo[argument])

    def _put(self, argument: int) -> None:
        self.memo[argument] = self.stack[-1]

    def _memoize(self, argument: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _tuple(self, argument: None) -> None:
        items = tuple(self._above_mark())
        self.stack.append(items)

    def _tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise Broken("the stack ran empty")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _list(self, argument: None) -> None:
        items = self._above_mark()
        self.stack.append(items)

    def _append(self, argument: None) -> None:
        value = self.stack.pop()
        self._extend(self.stack[-1], [value])

    def _appends(self, argument: None) -> None:
        items = self._above_mark()
        self._extend(self.stack[-1], items)

    def _extend(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Dead):  # items of an unknown kind of list are dropped
            raise Broken(f"items for {type(target).__name__}, which is no list")

    def _dict(self, argument: None) -> None:
        items = self._above_mark()
        self.stack.append(self._update({}, items))

    def _set_item(self, argument: None) -> None:
        items, self.stack[-2:] = self.stack[-2:], []
        self._update(self.stack[-1], items)

    def _set_items(self, argument: None) -> None:
        items = self._above_mark()
        self._update(self.stack[-1], items)

    def _update(self, target: Any, items: list[Any]) -> Any:
        if len(items) % 2:
            raise Broken("a key without a value")
        if isinstance(target, dict):
            for index in range(0, len(items), 2):
                target[check_key(items[index])] = items[index + 1]
        elif not isinstance(target, Dead):
            raise Broken(f"keys for {type(target).__name__}, which is no dict")
        return target

    def _add_items(self, argument: None) -> None:
        items = self._above_mark()
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(map(check_key, items))
        elif not isinstance(self.stack[-1], Dead):
            raise Broken(f"members for {type(self.stack[-1]).__name__}, which is no set")

    def _frozen_set(self, argument: None) -> None:
        items = self._above_mark()
        self.stack.append(frozenset(map(check_key, items)))

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(Global(module, name))

    def _stack_global(self, argument: None) -> None:
        module, name = self.stack[-2:]
        if not isinstance(module, str) or not isinstance(name, str):
            raise Broken("a class or function whose name is no text")
        self.stack[-2:] = [Global(module, name)]

    def _reduce(self, argument: None) -> None:
        what, args = self.stack[-2:]
        self.stack[-2:] = [self.call(what, args)]

    def _new_with_keywords(self, argument: None) -> None:
        what, args, keywords = self.stack[-3:]
        if not isinstance(what, Global | Dead):
            raise Broken("a class is expected")
        self.stack[-3:] = [Dead(what if isinstance(what, Global) else what.what, (args, keywords))]

    def _inst(self, argument: str) -> None:
        args = tuple(self._above_mark())
        self._global(argument)
        self.stack.append(self.call(self.stack.pop(), args))

    def _obj(self, argument: None) -> None:
        what, *args = self._above_mark()
        self.stack.append(self.call(what, tuple(args)))

    def _build(self, argument: None) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Dead):
            target.state = state
        elif isinstance(target, DType):
            target.build(state)
        elif isinstance(target, StoredArray):
            self.fill(target, state)
        elif not isinstance(target, dict | Record):  # attributes of a dict's subclass; its items come by themselves
            raise Broken(f"attributes for {type(target).__name__}")

    def _persistent(self, argument: Any) -> None:
        identity = self.stack.pop() if argument is None else argument
        if self.persistent is None:
            raise Broken("a persistent id, which only torch.save's own files have")
        self.stack.append(self.persistent(identity))


_STEPS: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine._get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine._put),
    **dict.fromkeys(("PERSID", "BINPERSID"), Machine._persistent),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), Machine._reduce),
    "PROTO": Machine._proto,
    "FRAME": Machine._frame,
    "MARK": Machine._mark,
    "POP": Machine._pop,
    "POP_MARK": Machine._pop_mark,
    "DUP": Machine._dup,
    "MEMOIZE": Machine._memoize,
    "TUPLE": Machine._tuple,
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    "LIST": Machine._list,
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "APPEND": Machine._append,
    "APPENDS": Machine._appends,
    "DICT": Machine._dict,
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "SETITEM": Machine._set_item,
    "SETITEMS": Machine._set_items,
    "EMPTY_SET": lambda machine, _: machine.stack.append(set()),
    "ADDITEMS": Machine._add_items,
    "FROZENSET": Machine._frozen_set,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "NEWOBJ_EX": Machine._new_with_keywords,
    "INST": Machine._inst,
    "OBJ": Machine._obj,
    "BUILD": Machine._build,
}
