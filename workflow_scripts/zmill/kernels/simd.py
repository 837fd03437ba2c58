"""SIMD loops over rows, sixteen at a time, compiled by LLVM for the present processor in a fraction of a second.

Python functions build a `Code`: operations on a `Value` (a register of sixteen numbers, one for each row, or one integer for
counting) generate instructions and compute nothing. The code is explicitly vectorized, so that the compiler needs no
auto-vectorization and compilation is fast.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

LANES = 16
"""Rows computed at a time: the float32 numbers of a 512-bit register. With shorter registers, LLVM uses several for one."""

FLOAT, INT, COUNT, POINTER = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.PointerType()
BYTE, SHORT = ir.IntType(8), ir.IntType(16)
FLOATS, INTS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT, LANES)
BOOLEANS, POINTERS = ir.VectorType(ir.IntType(1), LANES), ir.VectorType(POINTER, LANES)
FUSED = ("contract",)
"""Flags of arithmetic: a product and a sum may be fused."""
Shape = tuple[int | str, ...]
"""Lengths of an array's axes: numbers, or names of arguments that are numbers."""
HUGE = 3e38
"""A finite number larger than all data."""
LOG2_E = 1.4426950408889634


class Value:
    """The result of an operation: LANES float32 or int32 numbers or booleans, or one 64-bit integer."""

    def __init__(self, code: Code, value: ir.Value) -> None:
        self.code, self.value, self.type = code, value, value.type

    def _with(self, other: Value | float) -> ir.Value:
        return other.value if isinstance(other, Value) else self.code.constant(other, self.type).value

    def _do(self, name: str, left: ir.Value, right: ir.Value) -> Value:
        build = self.code.builder
        if self.type == FLOATS:
            return Value(self.code, getattr(build, f"f{name}")(left, right, flags=FUSED))
        return Value(self.code, getattr(build, name)(left, right))

    def __add__(self, other: Value | float) -> Value:
        return self._do("add", self.value, self._with(other))

    def __sub__(self, other: Value | float) -> Value:
        return self._do("sub", self.value, self._with(other))

    def __rsub__(self, other: float) -> Value:
        return self._do("sub", self._with(other), self.value)

    def __mul__(self, other: Value | float) -> Value:
        return self._do("mul", self.value, self._with(other))

    def __truediv__(self, other: Value | float) -> Value:
        return self._do("div", self.value, self._with(other))

    def __rtruediv__(self, other: float) -> Value:
        return self._do("div", self._with(other), self.value)

    __radd__, __rmul__ = __add__, __mul__

    def __lt__(self, other: Value | float) -> Value:
        return self._compare("<", other)

    def __gt__(self, other: Value | float) -> Value:
        return self._compare(">", other)

    def __ge__(self, other: Value | float) -> Value:
        return self._compare(">=", other)

    def _compare(self, how: str, other: Value | float) -> Value:
        build = self.code.builder.fcmp_ordered if self.type == FLOATS else self.code.builder.icmp_signed
        return Value(self.code, build(how, self.value, self._with(other)))

    def __and__(self, other: Value | int) -> Value:
        return Value(self.code, self.code.builder.and_(self.value, self._with(other)))

    def __or__(self, other: Value) -> Value:
        return Value(self.code, self.code.builder.or_(self.value, other.value))

    def __lshift__(self, bits: int) -> Value:
        return Value(self.code, self.code.builder.shl(self.value, self._with(bits)))

    def __rshift__(self, bits: int) -> Value:
        return Value(self.code, self.code.builder.ashr(self.value, self._with(bits)))

    def unknown(self) -> Value:
        """Booleans: whether the number is NaN."""
        return Value(self.code, self.code.builder.fcmp_unordered("uno", self.value, self.value))

    def finite(self) -> Value:
        """Booleans: whether the number is neither NaN nor infinite."""
        return (self < HUGE) & (self > -HUGE)

    def where(self, yes: Value | float, no: Value) -> Value:
        """Select by booleans: `yes` where true, `no` elsewhere."""
        return Value(self.code, self.code.builder.select(self.value, no._with(yes), no.value))

    def max(self, other: Value | float) -> Value:
        """The larger number; `other` where this is NaN."""
        wanted = Value(self.code, self._with(other))
        return (self > wanted).where(self, wanted)

    def min(self, other: Value | float) -> Value:
        """The smaller number; `other` where this is NaN."""
        wanted = Value(self.code, self._with(other))
        return (self < wanted).where(self, wanted)

    def sqrt(self) -> Value:
        """Square roots."""
        return self.code.sqrt(self.value)

    def bits(self) -> Value:
        """Bit patterns of floats as integers, or the inverse."""
        return Value(self.code, self.code.builder.bitcast(self.value, INTS if self.type == FLOATS else FLOATS))

    def to_int(self) -> Value:
        """Floats truncated to integers; they must be within the range of int32."""
        return Value(self.code, self.code.builder.fptosi(self.value, INTS))

    def index_of_lane(self, lane: int) -> Value:
        """The integer of one lane as a 64-bit integer."""
        one = self.code.builder.extract_element(self.value, ir.Constant(INT, lane))
        return Value(self.code, self.code.builder.sext(one, COUNT))

    def of_lane(self, lane: int) -> Value:
        """The number of one lane in all lanes."""
        return Value(
            self.code, self.code.builder.shuffle_vector(self.value, self.value, ir.Constant(INTS, [lane] * LANES))
        )

    def to_float(self) -> Value:
        """Integers as floats."""
        return Value(self.code, self.code.builder.sitofp(self.value, FLOATS))

    def spread(self) -> Value:
        """A 64-bit integer below 2^24 as a float in all lanes."""
        build = self.code.builder
        return self.code.in_all_lanes(build.sitofp(self.value, FLOAT))

    def exp2(self) -> Value:
        """2 to the power of numbers from −126 to 126, with a relative error of 2e-7; NaN of NaN."""
        shifted = self + MAGIC
        nearest = shifted - MAGIC
        rest, power = self - nearest, self.code.constant(EXP2[-1])
        for coefficient in EXP2[-2::-1]:
            power = power * rest + coefficient
        return power * ((shifted.bits() << 23) + ONE_BITS).bits()

    def log2(self) -> Value:
        """Logarithms to the base 2 of positive normal numbers, with an absolute or relative error of 1e-7."""
        bits = self.bits()
        exponent = (bits - SQRT_HALF_BITS) >> 23
        mantissa = (bits - (exponent << 23)).bits()  # from √½ to √2
        s = (mantissa - 1.0) / (mantissa + 1.0)
        square = s * s
        series = self.code.constant(LOG2[-1])
        for coefficient in LOG2[-2::-1]:
            series = series * square + coefficient
        return series * s + exponent.to_float()

    def log(self) -> Value:
        """Natural logarithms; see `log2`."""
        return self.log2() * (1 / LOG2_E)


MAGIC = 1.5 * 2.0**23
"""A number that, when added, leaves the nearest integer in the last bits of the sum."""
EXP2 = [1.0, 0.6931471806, 0.2402265070, 0.05550410866, 0.009618129108, 0.001333355815, 0.0001540353039]
"""Coefficients of the powers of x in 2^x: (ln 2)^k / k!."""
LOG2 = [2 * LOG2_E / k for k in (1, 3, 5, 7, 9)]
"""Coefficients of the odd powers of (x − 1) / (x + 1) in the logarithm of x."""
ONE_BITS = 0x3F800000
SQRT_HALF_BITS = 0x3F3504F3


class Code:
    """A function of arrays and integers, under construction.

    Parameters
    ----------
    arrays : name -> (type, shape) of each array argument; every call is checked against them.
    counts : names of the integer arguments, which follow the arrays.

    All arguments are attributes; that of an array is its address.
    """

    def __init__(self, arrays: Mapping[str, tuple[Any, Shape]], counts: Sequence[str]) -> None:
        self.module = ir.Module()
        types = [POINTER] * len(arrays) + [COUNT] * len(counts)
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), types), "run")
        self.builder = ir.IRBuilder(function.append_basic_block())
        self._arguments = dict(zip((*arrays, *counts), function.args, strict=True))
        self._arrays, self._counts = dict(arrays), tuple(counts)

    def __getattr__(self, name: str) -> Value:
        try:
            return Value(self, self._arguments[name])
        except KeyError:
            raise AttributeError(name) from None

    def constant(self, number: float, type_: ir.Type = FLOATS) -> Value:
        """The same number in all lanes, or a 64-bit integer."""
        if isinstance(type_, ir.VectorType):
            exact = float(np.float32(number)) if type_ == FLOATS else int(number)
            return Value(self, ir.Constant(type_, [exact] * LANES))
        return Value(self, ir.Constant(type_, int(number)))

    def lanes(self) -> Value:
        """0 to 15."""
        return Value(self, ir.Constant(INTS, list(range(LANES))))

    def count(self, number: int) -> Value:
        """A constant 64-bit integer."""
        return self.constant(number, COUNT)

    def _intrinsic(self, name: str, gives: ir.Type, takes: Sequence[ir.Type]) -> ir.Function:
        known = self.module.globals.get(name)
        return known or ir.Function(self.module, ir.FunctionType(gives, takes), name)

    def sqrt(self, value: ir.Value) -> Value:
        """Square roots."""
        return Value(self, self.builder.call(self._intrinsic(f"llvm.sqrt.v{LANES}f32", FLOATS, [FLOATS]), [value]))

    def _address(self, base: Value, at: Value | int, of: ir.Type) -> ir.Value:
        index = at.value if isinstance(at, Value) else ir.Constant(COUNT, at)
        return self.builder.gep(base.value, [index], source_etype=of)

    def load(self, base: Value, at: Value | int, kind: ir.Type = FLOATS) -> Value:
        """Load sixteen consecutive floats or 32-bit integers of an array, from index `at`."""
        return Value(self, self.builder.load(self._address(base, at, FLOAT), align=4, typ=kind))

    def spread(self, base: Value, at: Value | int) -> Value:
        """One float of an array in all lanes."""
        one = self.builder.load(self._address(base, at, FLOAT), align=4, typ=FLOAT)
        return self.in_all_lanes(one)

    def in_all_lanes(self, one: ir.Value) -> Value:
        """A float in all lanes."""
        nothing = ir.Constant(FLOATS, ir.Undefined)
        first = self.builder.insert_element(nothing, one, ir.Constant(INT, 0))
        return Value(self, self.builder.shuffle_vector(first, nothing, ir.Constant(INTS, [0] * LANES)))

    def store(self, value: Value, base: Value, at: Value | int, of: ir.Type = FLOAT) -> None:
        """Store sixteen consecutive floats or 32-bit integers; for narrower integer types, truncated."""
        wide = value.value
        if of not in (FLOAT, INT):
            wide = self.builder.trunc(wide, ir.VectorType(of, LANES))
        self.builder.store(wide, self._address(base, at, of), align=1)

    def gather(self, base: Value, at: Value, start: Value | int = 0) -> Value:
        """Load the float at the index of each lane, counted from `start`."""
        origin = self._address(base, start, FLOAT)
        pointers = self.builder.gep(origin, [at.value], source_etype=FLOAT)
        pointers.type = POINTERS
        gather = self._intrinsic(
            f"llvm.masked.gather.v{LANES}f32.v{LANES}p0", FLOATS, [POINTERS, INT, BOOLEANS, FLOATS]
        )
        all_ = ir.Constant(BOOLEANS, [1] * LANES)
        return Value(
            self, self.builder.call(gather, [pointers, ir.Constant(INT, 4), all_, ir.Constant(FLOATS, ir.Undefined)])
        )

    def of_rows(self, base: Value, row: Value, width: int, number: int) -> Value:
        """Column `number` of sixteen rows, from `row` on, of an array of rows of `width` floats."""
        return self.gather(base, self.lanes() * width + number, row * width)

    def transposed(self, rows: Sequence[Value]) -> list[Value]:
        """The transpose of sixteen rows of sixteen numbers."""
        found = [row.value for row in rows]
        for width in (1, 2, 4, 8):  # exchange the two off-diagonal blocks
            low = [i if not i & width else i - width + LANES for i in range(LANES)]
            high = [i + width if not i & width else i + LANES for i in range(LANES)]
            for i in range(LANES):
                if not i & width:
                    pair = found[i], found[i + width]
                    found[i], found[i + width] = (
                        self.builder.shuffle_vector(*pair, ir.Constant(INTS, mask)) for mask in (low, high)
                    )
        return [Value(self, value) for value in found]

    def each_block(self, rows: Value, body: Callable[[Value], None]) -> None:
        """Call `body(first row)` for each block of sixteen rows. There must be at least sixteen rows; the last block overlaps the one before."""

        def block(row: Value) -> tuple[()]:
            body(row.min(rows - LANES))
            return ()

        self.loop(0, rows, LANES, block)

    def loop(
        self, start: Value | int, stop: Value | int, step: int, body: Callable[..., Sequence[Value]], *carried: Value
    ) -> tuple[Value, ...]:
        """Loop `carried = body(i, *carried)` for i from `start` below `stop`, and return the last `carried`."""
        begin, end = (one.value if isinstance(one, Value) else ir.Constant(COUNT, one) for one in (start, stop))
        build, before = self.builder, self.builder.block
        inside, behind = build.append_basic_block(), build.append_basic_block()
        build.cbranch(build.icmp_signed("<", begin, end), inside, behind)
        build.position_at_end(inside)
        phis = [build.phi(type_) for type_ in (COUNT, *(value.type for value in carried))]
        for phi, value in zip(phis, (begin, *(value.value for value in carried)), strict=True):
            phi.add_incoming(value, before)
        given = tuple(body(*(Value(self, phi) for phi in phis)))
        after = build.add(phis[0], ir.Constant(COUNT, step))
        for phi, new in zip(phis, (after, *(value.value for value in given)), strict=True):
            phi.add_incoming(new, build.block)
        last = build.block
        build.cbranch(build.icmp_signed("<", after, end), inside, behind)
        build.position_at_end(behind)
        found = [build.phi(value.type) for value in carried]
        for phi, start_value, end_value in zip(found, carried, given, strict=True):
            phi.add_incoming(start_value.value, before)
            phi.add_incoming(end_value.value, last)
        return tuple(Value(self, phi) for phi in found)

    def compiled(self) -> Compiled:
        """Compile the function, after its last operation."""
        self.builder.ret_void()
        return Compiled(str(self.module), self._arrays, self._counts)


def a_block_at_least(array: NDArray[Any]) -> NDArray[Any]:
    """A contiguous array, padded with zeros to at least sixteen rows."""
    if len(array) < LANES:
        array = np.concatenate([array, np.zeros((LANES - len(array), *array.shape[1:]), array.dtype)])
    return np.ascontiguousarray(array)


class Compiled:
    """Machine code, which runs without Python's global interpreter lock.

    text : LLVM's assembly of a function `run`; arrays, counts : its arguments, as `Code` takes them.
    """

    def __init__(self, text: str, arrays: Mapping[str, tuple[Any, Shape]], counts: Sequence[str]) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
        )
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
        self._engine.finalize_object()
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays), *[ctypes.c_int64] * len(counts))
        self._run = kind(self._engine.get_function_address("run"))
        self._arrays = {name: (np.dtype(type_), shape) for name, (type_, shape) in arrays.items()}
        self._counts = tuple(counts)

    def __call__(self, *arguments: NDArray[Any] | int) -> None:
        """Run on arrays and numbers, in the order of `Code`.

        Raises
        ------
        ValueError
            If an array has another type, is not contiguous, or has fewer elements than its shape.
        """
        arrays, counts = arguments[: len(self._arrays)], arguments[len(self._arrays) :]
        number: dict[Any, Any] = dict(zip(self._counts, counts, strict=True))
        for array, (name, (type_, shape)) in zip(arrays, self._arrays.items(), strict=True):
            assert isinstance(array, np.ndarray)
            needed = math.prod(number.get(length, length) for length in shape)
            if array.dtype != type_ or not array.flags.c_contiguous or array.size < needed:
                raise ValueError(
                    f"{name}: found {array.dtype} of shape {array.shape}, strides {array.strides}; "
                    f"expected {type_} in one piece of {needed} elements"
                )
        self._run(*(one.ctypes.data if isinstance(one, np.ndarray) else one for one in arguments))
