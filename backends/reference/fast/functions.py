"""Elementwise functions as LLVM instructions on vectors of any width.

A function takes the `Lines` that it writes to and the names of its operands, and returns the name of its result.
Each is exact, rounded correctly, or within two units in the last place of the true value (tests/test_fast.py); NaN,
infinities and signed zeros are as in NumPy. In float32 the transcendental ones are computed in float64 and rounded.

The polynomials of sin, cos and log are those of fdlibm (Sun Microsystems, 1993); exp is the Taylor series after a
reduction by multiples of ln 2 (Cody and Waite, "Software Manual for the Elementary Functions", 1980).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

LLVM_TYPES = {"float64": "double", "float32": "float", "bool": "i1"}


def literal(number: float, dtype: str) -> str:
    """A constant as LLVM reads it: the bits of the float64."""
    if dtype == "bool":
        return "true" if number else "false"
    if dtype == "float32":
        number = struct.unpack("f", struct.pack("f", number))[0] if math.isfinite(number) else number
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"


class Lines:
    """Instructions of a function that is being written, all on vectors of `width` lanes."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names = 0
        self.block = "entry"
        self.width = 1
        self.needs: dict[str, str] = {}
        """Declarations and helper functions, by name."""
        self.seen: dict[tuple[str, str], Any] = {}
        """What has been computed from a name already, to share it."""

    def new(self, prefix: str = "v") -> str:
        self.names += 1
        return f"%{prefix}{self.names}"

    def put(self, line: str) -> None:
        self.lines.append(f"  {line}")

    def open(self, name: str) -> None:
        """A new block, where jumps to `name` go."""
        self.lines.append(f"{name}:")
        self.block = name

    def branch(self, rare: str, y: str, other: Callable[[], str]) -> str:
        """y; where `rare` holds, what `other` computes instead (a float64)."""
        self.names += 1
        before, aside, join = self.block, f"rare{self.names}", f"join{self.names}"
        self.put(f"br i1 {rare}, label %{aside}, label %{join}, !prof !0")
        self.open(aside)
        z = other()
        self.put(f"br label %{join}")
        self.open(join)
        return self.let(f"phi {self.type('double')} [ {y}, %{before} ], [ {z}, %{aside} ]")

    def let(self, expression: str) -> str:
        name = self.new()
        self.put(f"{name} = {expression}")
        return name

    def type(self, element: str) -> str:
        return element if self.width == 1 else f"<{self.width} x {element}>"

    def suffix(self, element: str) -> str:
        short = {"double": "f64", "float": "f32", "i64": "i64", "i1": "i1"}[element]
        return short if self.width == 1 else f"v{self.width}{short}"

    def splat(self, constant: str, element: str) -> str:
        return constant if self.width == 1 else f"<{', '.join([f'{element} {constant}'] * self.width)}>"

    def number(self, value: float, element: str = "double") -> str:
        return self.splat(literal(value, "float32" if element == "float" else "float64"), element)

    def whole(self, value: int) -> str:
        return self.splat(str(value), "i64")

    # One instruction.

    def op(self, name: str, a: str, b: str, element: str = "double") -> str:
        return self.let(f"{name} {self.type(element)} {a}, {b}")

    def compare(self, how: str, a: str, b: str, element: str = "double") -> str:
        return self.let(f"fcmp {how} {self.type(element)} {a}, {b}")

    def select(self, condition: str, a: str, b: str, element: str = "double") -> str:
        t = self.type(element)
        return self.let(f"select {self.type('i1')} {condition}, {t} {a}, {t} {b}")

    def intrinsic(self, name: str, *args: str, element: str = "double") -> str:
        t, full = self.type(element), f"llvm.{name}.{self.suffix(element)}"
        self.needs[full] = f"declare {t} @{full}({', '.join([t] * len(args))})"
        return self.let(f"call {t} @{full}({', '.join(f'{t} {a}' for a in args)})")

    def fma(self, a: str, b: str, c: str) -> str:
        return self.intrinsic("fma", a, b, c)

    def bits(self, x: str) -> str:
        return self.let(f"bitcast {self.type('double')} {x} to {self.type('i64')}")

    def from_bits(self, x: str) -> str:
        return self.let(f"bitcast {self.type('i64')} {x} to {self.type('double')}")

    def polynomial(self, x: str, coefficients: list[float]) -> str:
        """Horner's scheme, from the highest power down."""
        total = self.number(coefficients[0])
        for c in coefficients[1:]:
            total = self.fma(total, x, self.number(c))
        return total

    def by_lane(self, symbol: str, *args: str) -> str:
        """A function of the C library, one lane after the other, in float64."""
        t, n = self.type("double"), len(args)
        one = f"declare double @{symbol}({', '.join(['double'] * n)})"
        self.needs[symbol] = one
        if self.width == 1:
            return self.let(f"call double @{symbol}({', '.join(f'double {a}' for a in args)})")
        helper = f"lanes.{symbol}.{self.width}"
        lines = [
            f"define internal {t} @{helper}({', '.join(f'{t} %a{i}' for i in range(n))}) cold noinline nounwind ATTR {{"
        ]
        last = "poison"
        for lane in range(self.width):
            for i in range(n):
                lines.append(f"  %x{lane}.{i} = extractelement {t} %a{i}, i32 {lane}")
            call = ", ".join(f"double %x{lane}.{i}" for i in range(n))
            lines.append(f"  %y{lane} = call double @{symbol}({call})")
            lines.append(f"  %r{lane} = insertelement {t} {last}, double %y{lane}, i32 {lane}")
            last = f"%r{lane}"
        self.needs[helper] = "\n".join([*lines, f"  ret {t} {last}", "}"])
        return self.let(f"call {t} @{helper}({', '.join(f'{t} {a}' for a in args)})")


MAGIC = 1.5 * 2.0**52
"""Added to a number, it leaves the nearest whole number in the low bits."""
MAGIC_BITS = struct.unpack("<q", struct.pack("<d", MAGIC))[0]
LN2_HIGH, LN2_LOW = 0.6931471805599453, 2.3190468138462996e-17
PI_2 = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591833e-33)


def _power_of_two(b: Lines, k: str) -> str:
    return b.from_bits(b.op("shl", b.op("add", k, b.whole(1023), "i64"), b.whole(52), "i64"))


def _reduced(b: Lines, x: str) -> tuple[str, str]:
    """k and ``e^r - 1`` for ``x = k ln 2 + r``, k whole."""
    shifted = b.fma(x, b.number(1.4426950408889634), b.number(MAGIC))
    k = b.op("sub", b.bits(shifted), b.whole(MAGIC_BITS), "i64")
    n = b.op("fsub", shifted, b.number(MAGIC))
    r = b.fma(n, b.number(-LN2_LOW), b.fma(n, b.number(-LN2_HIGH), x))
    q = b.polynomial(r, [1 / math.factorial(i) for i in range(13, 1, -1)])
    return k, b.fma(b.op("fmul", r, r), q, r)


def _clamp(b: Lines, x: str, low: float, high: float) -> str:
    """NaN stays."""
    x = b.select(b.compare("olt", x, b.number(low)), b.number(low), x)
    return b.select(b.compare("ogt", x, b.number(high)), b.number(high), x)


def exp(b: Lines, x: str) -> str:
    k, p = _reduced(b, _clamp(b, x, -746.0, 710.0))
    half = b.op("ashr", k, b.whole(1), "i64")  # in two steps, for what overflows or is subnormal
    y = b.op("fmul", b.op("fadd", p, b.number(1.0)), _power_of_two(b, half))
    return b.op("fmul", y, _power_of_two(b, b.op("sub", k, half, "i64")))


def _expm1(b: Lines, x: str) -> str:
    """Of x from -40 to 710: ``2 (2^(k-1) (e^r - 1) + (2^(k-1) - 1/2))``."""
    k, p = _reduced(b, x)
    scale = _power_of_two(b, b.op("sub", k, b.whole(1), "i64"))
    y = b.fma(scale, p, b.op("fsub", scale, b.number(0.5)))
    return b.op("fadd", y, y)


def expm1(b: Lines, x: str) -> str:
    y = _expm1(b, _clamp(b, x, -40.0, 710.0))
    return b.select(b.compare("oeq", x, b.number(0.0)), x, y)  # -0


def tanh(b: Lines, x: str) -> str:
    """``(e^2a - 1) / (e^2a + 1)`` of a = abs(x), with the quotient's rounding put right."""
    a = _clamp(b, b.intrinsic("fabs", x), 0.0, 20.0)
    above = _expm1(b, b.op("fadd", a, a))
    below = b.op("fadd", above, b.number(2.0))
    lost = b.op("fsub", above, b.op("fsub", below, b.number(2.0)))  # of below
    inverse = b.op("fdiv", b.number(1.0), below)
    y = b.op("fmul", above, inverse)
    rest = b.op("fsub", b.intrinsic("fma", b.let(f"fneg {b.type('double')} {y}"), below, above), b.op("fmul", y, lost))
    return b.intrinsic("copysign", b.fma(rest, inverse, y), x)


def log(b: Lines, x: str) -> str:
    """With x = 2^k (1 + f) and s = f / (2 + f): ``k ln 2 + f - f^2/2 + s (f^2/2 + R(s^2))``."""
    tiny = b.compare("olt", x, b.number(2.2250738585072014e-308))
    bits = b.bits(b.select(tiny, b.op("fmul", x, b.number(2.0**54)), x))
    above = b.op("sub", bits, b.whole(0x3FE6A09E667F3BCD), "i64")  # the square root of 1/2
    k = b.op("ashr", above, b.whole(52), "i64")
    f = b.op("fsub", b.from_bits(b.op("sub", bits, b.op("shl", k, b.whole(52), "i64"), "i64")), b.number(1.0))
    k = b.op("fsub", b.from_bits(b.op("add", k, b.whole(MAGIC_BITS), "i64")), b.number(MAGIC))
    k = b.select(tiny, b.op("fsub", k, b.number(54.0)), k)
    s = b.op("fdiv", f, b.op("fadd", f, b.number(2.0)))
    z = b.op("fmul", s, s)
    r = b.op("fmul", z, b.polynomial(z, _LOG))
    half = b.op("fmul", b.op("fmul", f, f), b.number(0.5))
    low = b.fma(k, b.number(1.90821492927058770002e-10), b.op("fmul", s, b.op("fadd", half, r)))
    y = b.fma(k, b.number(6.93147180369123816490e-01), b.op("fsub", f, b.op("fsub", half, low)))
    y = b.select(b.compare("olt", x, b.number(math.inf)), y, x)
    y = b.select(b.compare("olt", x, b.number(0.0)), b.number(math.nan), y)
    return b.select(b.compare("oeq", x, b.number(0.0)), b.number(-math.inf), y)


_LOG = [
    1.479819860511658591e-01,
    1.531383769920937332e-01,
    1.818357216161805012e-01,
    2.222219843214978396e-01,
    2.857142874366239149e-01,
    3.999999999940941908e-01,
    6.666666666666735130e-01,
]


def log1p(b: Lines, x: str) -> str:
    """``log u + (x - (u - 1)) / u`` of u = 1 + x, rounded."""
    u = b.op("fadd", x, b.number(1.0))
    lost = b.op("fsub", x, b.op("fsub", u, b.number(1.0)))
    y = b.op("fadd", log(b, u), b.op("fdiv", lost, u))
    ordinary = b.op("and", b.compare("ogt", x, b.number(-1.0)), b.compare("olt", x, b.number(math.inf)), "i1")
    y = b.select(ordinary, y, log(b, u))
    return b.select(b.compare("oeq", x, b.number(0.0)), x, y)


FAR = 2.0**25
"""Up to here, x less a multiple of pi/2 in three parts keeps all its digits."""


def _sin_cos(b: Lines, x: str) -> tuple[str, str, str]:
    """Of x = q pi/2 + r: sin r, cos r and q."""
    if (x, "sin_cos") not in b.seen:
        shifted = b.fma(x, b.number(2 / math.pi), b.number(MAGIC))
        n = b.op("fsub", shifted, b.number(MAGIC))
        near = b.fma(n, b.number(-PI_2[1]), b.fma(n, b.number(-PI_2[0]), x))
        r = b.fma(n, b.number(-PI_2[2]), near)  # of the same sign, but for -0
        z = b.op("fmul", r, r)
        sine = b.fma(b.op("fmul", z, r), b.polynomial(z, _SIN), r)
        half = b.op("fmul", z, b.number(0.5))
        most = b.op("fsub", b.number(1.0), half)
        lost = b.op("fsub", b.op("fsub", b.number(1.0), most), half)
        tail = b.fma(b.op("fmul", z, z), b.polynomial(z, _COS), lost)
        cosine = b.op("fadd", most, tail)
        b.seen[x, "sin_cos"] = b.intrinsic("copysign", sine, near), cosine, b.bits(shifted)
    return b.seen[x, "sin_cos"]  # type: ignore[no-any-return]


_SIN = [
    1.58969099521155010221e-10,
    -2.50507602534068634195e-08,
    2.75573137070700676789e-06,
    -1.98412698298579493134e-04,
    8.33333333332248946124e-03,
    -1.66666666666666324348e-01,
]
_COS = [
    -1.13596475577881948265e-11,
    2.08757232129817482790e-09,
    -2.75573143513906633035e-07,
    2.48015872894767294178e-05,
    -1.38888888888741095749e-03,
    4.16666666666666019037e-02,
]


def sin(b: Lines, x: str) -> str:
    sine, cosine, q = _sin_cos(b, x)
    return _unless_far(b, x, _quadrant(b, sine, cosine, q), "sin")


def cos(b: Lines, x: str) -> str:
    sine, cosine, q = _sin_cos(b, x)
    return _unless_far(b, x, _quadrant(b, sine, cosine, b.op("add", q, b.whole(1), "i64")), "cos")


def _quadrant(b: Lines, sine: str, cosine: str, q: str) -> str:
    odd = b.let(f"icmp ne {b.type('i64')} {b.op('and', q, b.whole(1), 'i64')}, {b.splat('0', 'i64')}")
    sign = b.op("shl", b.op("and", q, b.whole(2), "i64"), b.whole(62), "i64")
    return b.from_bits(b.op("xor", b.bits(b.select(odd, cosine, sine)), sign, "i64"))


def _unless_far(b: Lines, x: str, y: str, symbol: str) -> str:
    """y; where x is far from 0, by the C library."""
    far = some = b.compare("ogt", b.intrinsic("fabs", x), b.number(FAR))
    if b.width > 1:
        mask = b.let(f"bitcast {b.type('i1')} {far} to i{b.width}")
        some = b.let(f"icmp ne i{b.width} {mask}, 0")
    return b.branch(some, y, lambda: b.select(far, b.by_lane(symbol, x), y))


# By name of primitive; from float64 to float64.
TRANSCENDENTAL: dict[str, Callable[..., str]] = {
    "exp": exp, "expm1": expm1, "log": log, "log1p": log1p, "sin": sin, "cos": cos, "tanh": tanh,
}  # fmt: skip

C_LIBRARY = {
    "acos": "acos", "acosh": "acosh", "asin": "asin", "asinh": "asinh", "atan": "atan", "atan2": "atan2",
    "atanh": "atanh", "cosh": "cosh", "exp2": "exp2", "hypot": "hypot", "log10": "log10", "log2": "log2", "pow": "pow",
    "sinh": "sinh", "tan": "tan",
}  # fmt: skip
"""Functions of the C library, called lane by lane: for small arrays, of which NumPy's call is most of the time."""
