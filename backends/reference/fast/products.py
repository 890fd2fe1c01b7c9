"""Matrix products: small ones as loops, large ones by BLAS."""

from __future__ import annotations

from collections.abc import Sequence

from adbridge.backends.reference.fast.functions import LLVM_TYPES, literal
from adbridge.backends.reference.fast.kernels import Kernel
from adbridge.backends.reference.fast.lower import Product, Value


def product(k: Kernel, op: Product) -> None:
    """``c = a @ b``, c laid out by rows: %p0, %p1 to %p2, over leading axes."""
    lead = op.out.shape[:-2]
    steps = [
        (0,) * (len(lead) - len(v.shape) + 2)
        + tuple(s if n > 1 else 0 for n, s in zip(v.shape[:-2], v.strides, strict=False))
        for v in (op.a, op.b, op.out)
    ]

    def level(axis: int, at: Sequence[str]) -> None:
        if axis == len(lead):
            small_product(k, op, *at) if is_small(op) else blas_product(k, op, *at)
        elif lead[axis] == 1:
            level(axis + 1, at)
        else:
            k.loop(
                0,
                lead[axis],
                1,
                lambda i: level(axis + 1, [k.at(p, i, s[axis]) for p, s in zip(at, steps, strict=True)]),
            )

    level(0, ["%p0", "%p1", "%p2"])


SMALL = 4096


def is_small(op: Product) -> bool:
    (m, kk), n = op.a.shape[-2:], op.b.shape[-1]
    return m * kk * n <= SMALL


def small_product(k: Kernel, op: Product, a: str, b: str, c: str) -> None:
    """Blocks of four rows and one or two vectors of columns, kept in registers."""
    (m, depth), n = op.a.shape[-2:], op.b.shape[-1]
    size, element = op.out.dtype.itemsize, LLVM_TYPES[op.out.dtype.name]
    width = min(k.vector_bytes // size, 1 << max(0, (n - 1).bit_length()))
    (a_row, a_step), (b_step, b_column) = op.a.strides[-2:], op.b.strides[-2:]
    c_row = op.out.strides[-2]

    def block(i: str | int, j: str | int, rows: int, vectors: int, mask: str | None) -> None:
        k.width = width
        t = k.type(element)
        slots = [[f"%sum{rows}.{r}.{v}" for v in range(vectors)] for r in range(rows)]
        for slot in (s for row in slots for s in row):
            if f"  {slot} = alloca {t}" not in k.entry:
                k.entry.append(f"  {slot} = alloca {t}")
            k.put(f"store {t} zeroinitializer, ptr {slot}")
        left = [k.at(k.at(a, i, a_row), r, a_row) for r in range(rows)]
        top = k.at(b, j, b_column)

        def step(d: str) -> None:
            k.width, k.mask = width, mask
            base = k.at(top, d, b_step)
            columns = [
                k.load(k.at(base, v * width, b_column), op.out.dtype, b_column if n > 1 else size)
                for v in range(vectors)
            ]
            for r in range(rows):
                x = k.load(k.at(left[r], d, a_step), op.out.dtype, 0)
                for v in range(vectors):
                    before = k.let(f"load {t}, ptr {slots[r][v]}")
                    after = k.intrinsic("fma", x, columns[v], before, element=element)
                    k.put(f"store {t} {after}, ptr {slots[r][v]}")

        k.loop(0, depth, 1, step)
        k.mask = mask
        for r in range(rows):
            row = k.at(k.at(k.at(c, i, c_row), r, c_row), j, size)
            for v in range(vectors):
                k.store(k.let(f"load {t}, ptr {slots[r][v]}"), k.at(row, v * width, size), op.out.dtype, size)
        k.mask = None

    def columns(i: str | int, rows: int) -> None:
        full = n // width * width
        pairs = n // (2 * width) * 2 * width
        if pairs:
            k.loop(0, pairs, 2 * width, lambda j: block(i, j, rows, 2, None))
        if full > pairs:
            block(i, pairs, rows, 1, None)
        if full < n:
            mask = f"<{', '.join('i1 true' if x < n - full else 'i1 false' for x in range(width))}>"
            block(i, full, rows, 1, mask)

    if m >= 4:
        k.loop(0, m // 4 * 4, 4, lambda i: columns(i, 4))
    if m % 4:
        columns(m // 4 * 4, m % 4)


def blas_product(k: Kernel, op: Product, a: str, b: str, c: str) -> None:
    """By gemm, which counts by columns: c transposed is b transposed times a transposed."""
    (m, depth), n = op.a.shape[-2:], op.b.shape[-1]
    element, size = LLVM_TYPES[op.out.dtype.name], op.out.dtype.itemsize
    name = {"double": "dgemm", "float": "sgemm"}[element]
    k.needs[name] = f"declare void @{name}({', '.join(['ptr'] * 13)})"

    def constant(t: str, x: str) -> str:
        k.names += 1
        k.entry += [f"  %b{k.names} = alloca {t}", f"  store {t} {x}, ptr %b{k.names}"]
        return f"%b{k.names}"

    b_flag, b_lead = _layout(op.b, size)
    a_flag, a_lead = _layout(op.a, size)
    one, zero = constant(element, literal(1.0, "float64")), constant(element, literal(0.0, "float64"))
    sizes = [constant("i32", str(x)) for x in (n, m, depth, b_lead, a_lead, max(1, n))]
    flags = [constant("i8", str(ord(flag))) for flag in (b_flag, a_flag)]
    pointers = [*flags, *sizes[:3], one, b, sizes[3], a, sizes[4], zero, c, sizes[5]]
    k.put(f"call void @{name}({', '.join(f'ptr {p}' for p in pointers)})")


def _layout(x: Value, size: int) -> tuple[str, int]:
    """Whether gemm is to transpose it, and the step from one row (or column) to the next, in elements."""
    (rows, columns), (down, right) = x.shape[-2:], x.strides[-2:]
    if (right == size or columns == 1) and (down >= size * columns or rows == 1):
        return "N", max(columns, down // size if rows > 1 else columns)
    return "T", max(rows, right // size if columns > 1 else rows)
