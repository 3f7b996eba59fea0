"""Triton's interpreter beside its compiler in one process.

`TRITON_INTERPRET=1` decides at import time for every kernel and for Triton's own library, so one
process has either the interpreter or the compiler. Here both live together: for the length of one
launch, interpreted twins of the kernel, of the `@triton.jit` functions it calls and of
`triton.language`'s library functions stand in, and everything is put back afterwards. One launch
runs at a time, and never beside a compilation (`language_lock`).

The interpreter keeps bf16 as raw 16-bit patterns and computes on the patterns: sums, products,
comparisons and dots of bf16 are wrong without any error, and fp32 to bf16 truncates. Here such
arithmetic raises Refused, and the conversion rounds to nearest even. A kernel therefore takes a
constexpr that casts bf16 to fp32 right after the load; a product of two bf16 values is exact in
fp32, so the meaning is that of the compiled kernel.
"""

from __future__ import annotations

import dataclasses
import importlib
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tilewright.errors import KernelFailed, Refused, Unavailable
from tilewright.interpret_memory import Memory, guard

language_lock = threading.RLock()
"""Held while `triton.language` is patched, and by everything that compiles."""

# By id, with the kernel kept alive: hashing a kernel would hash all the code it calls.
_twins: dict[int, tuple[Any, Any]] = {}
_BF16_ADVICE = (
    "Triton's interpreter computes bf16 on raw bit patterns; cast to tl.float32 right after "
    "the load (see tilewright.interpret)"
)


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    args: Sequence[Any],
    constexprs: Mapping[str, Any],
    options: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Run a `@triton.jit` kernel on torch tensors.

    `args` are its leading parameters, `constexprs` the others by name, `options` the compiler's
    (`num_warps`, `num_stages`). A grid with a zero launches nothing. With `interpret` it runs on
    the CPU; otherwise the tensors must lie on a GPU, or Unavailable is raised. A config that needs more than the
    GPU has arrives as Refused, what else Triton raises about the kernel as KernelFailed.
    """
    if 0 in grid:
        return
    if interpret:
        run_interpreted(kernel, grid, args, constexprs)
        return
    for arg in args:
        if getattr(getattr(arg, "device", None), "type", "") == "cpu":
            raise Unavailable(
                "a compiled Triton kernel needs tensors on a GPU, not cpu; use interpret instead"
            )
    from triton.errors import TritonError
    from triton.runtime.errors import OutOfResources

    try:
        kernel[grid](*args, **constexprs, **options)
    except OutOfResources as error:
        raise Refused(
            f"the kernel needs {error.required} of {error.name} with this config; this GPU has {error.limit}: "
            "smaller tiles or fewer stages need less"
        ) from error
    except TritonError as error:
        raise KernelFailed(f"Triton cannot launch the kernel: {_first_line(error)}") from error


def run_interpreted(
    kernel: Any, grid: tuple[int, ...], args: Sequence[Any], constexprs: Mapping[str, Any]
) -> None:
    """Run one launch through the interpreter, tensors on any device.

    Raises Refused for arithmetic on bf16, KernelFailed for memory outside the tensors.
    """
    import numpy as np
    from triton.runtime import interpreter
    from triton.runtime.errors import InterpreterError

    names = kernel.arg_names

    def guarded(*host: Any, **_: Any) -> None:
        guard(interpreter.InterpreterBuilder, Memory(names, host))

    with interpreting():
        twin = _twin(kernel)
        twin.pre_run_hooks.append(guarded)
        try:
            # A device does not warn of log2(0) or overflow either; the comparison sees what they give.
            with np.errstate(all="ignore"):
                twin.run(*args, grid=grid, warmup=False, **constexprs)
        except InterpreterError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, Refused | KernelFailed):
                cause = cause.__cause__
            if cause is not None:
                raise cause from None
            raise KernelFailed(
                f"the kernel failed in Triton's interpreter: {_first_line(error)}"
            ) from error
        finally:
            twin.pre_run_hooks.remove(guarded)


def _first_line(error: BaseException) -> str:
    """The innermost cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


@contextmanager
def interpreting() -> Iterator[None]:
    """Stand interpreted twins in for `triton.language`'s jit functions; undo all at the end."""
    import triton.language as tl
    from triton.runtime import interpreter

    # The first launch of a process imports gluon, which must not happen among the twins.
    importlib.import_module("triton.experimental.gluon")
    classes = (tl.tensor, tl.dtype, tl.core.tensor_descriptor_base)
    places = (
        tl,
        tl.core,
        tl.standard,
        tl.math,
        *classes,
        interpreter.InterpreterBuilder,
        interpreter.ReduceScanOpInterface,
        interpreter.InterpretedFunction,
        interpreter.interpreter_builder,
    )
    with language_lock:
        before = [dict(vars(place)) for place in places]
        try:
            for module in (tl, tl.core, tl.standard, tl.math):
                for name, value in list(vars(module).items()):
                    if _is_jit(value):
                        setattr(module, name, _twin(value))
            for cls in classes:
                for name, value in list(vars(cls).items()):
                    if _is_jit(value):
                        setattr(cls, name, _method(_twin(value)))
            _mend_dot(interpreter.InterpreterBuilder)
            _mend_bf16(interpreter.InterpreterBuilder, interpreter.ReduceScanOpInterface)
            # Patched once for all: a call of a helper would patch the language again, for 4 ms.
            interpreter._patch_lang(types.SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
            interpreter.InterpretedFunction.__call__ = _call
            # It computes every integer operation twice for assertions that it then leaves out.
            builder = interpreter.interpreter_builder
            builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
            yield
        finally:
            for place, names in zip(places, before, strict=True):
                _restore(place, names)


def _call(function: Any, *args: Any, **kwargs: Any) -> Any:
    return function.rewrite()(*args, **kwargs)


def _is_jit(value: object) -> bool:
    from triton.runtime.jit import JITFunction

    return isinstance(value, JITFunction)


def _twin(kernel: Any) -> Any:
    """A jit function's interpreted counterpart, over globals in which jit functions are twins."""
    from triton.runtime.interpreter import InterpretedFunction

    if isinstance(kernel, InterpretedFunction):
        return kernel
    if id(kernel) not in _twins:
        fn = kernel.fn
        names = dict(fn.__globals__)
        copy = types.FunctionType(fn.__code__, names, fn.__name__, fn.__defaults__, fn.__closure__)
        copy.__kwdefaults__ = fn.__kwdefaults__
        copy.__annotations__ = dict(fn.__annotations__)
        copy.__module__, copy.__qualname__ = fn.__module__, fn.__qualname__
        _twins[id(kernel)] = (kernel, InterpretedFunction(copy))
        # Entered in the table first, so that mutually recursive kernels end.
        names.update({name: _stand_in(value) for name, value in list(names.items())})
    return _twins[id(kernel)][1]


def _stand_in(value: Any) -> Any:
    """A kernel's global for its twin: jit functions, alone or in a module, become twins."""
    if _is_jit(value):
        return _twin(value)
    if isinstance(value, types.ModuleType) and value.__name__.partition(".")[0] != "triton":
        twins = {name: _twin(item) for name, item in list(vars(value).items()) if _is_jit(item)}
        if twins:
            module = types.ModuleType(value.__name__, value.__doc__)
            vars(module).update({**vars(value), **twins})
            return module
    return value


def _method(function: Any) -> Callable[..., Any]:
    def method(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return method


def _restore(place: Any, names: Mapping[str, Any]) -> None:
    for name in [name for name in vars(place) if name not in names]:
        delattr(place, name)
    for name, value in names.items():
        if vars(place).get(name) is not value:
            setattr(place, name, value)


def _mend_dot(builder: Any) -> None:
    """Sum dots of floats in fp64: numpy's fp32 products round a row by its place on some processors, no GPU does."""
    import numpy as np
    from triton.runtime.interpreter import TensorHandle

    plain = builder.create_dot

    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        if any(x.data.dtype not in (np.float16, np.float32) for x in (a, b, d)):
            return plain(self, a, b, d, *rest)
        product = np.matmul(a.data.astype(np.float64), b.data.astype(np.float64))
        return TensorHandle(product.astype(d.data.dtype) + d.data, d.dtype.scalar)

    builder.create_dot = create_dot


def _mend_bf16(builder: Any, reducer: Any) -> None:
    """Make the interpreter refuse arithmetic on bf16, and round fp32 to bf16 to nearest even."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    def is_bf16(value: Any) -> bool:
        dtype = getattr(getattr(value, "dtype", None), "scalar", None)
        return bool(dtype == tl.bfloat16)

    def refusing(operation: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(self: Any, *operands: Any, **kwargs: Any) -> Any:
            flat = [x for o in operands for x in (o if isinstance(o, tuple | list) else (o,))]
            if any(is_bf16(x) for x in flat):
                raise Refused(_BF16_ADVICE)
            return operation(self, *operands, **kwargs)

        return guarded

    def rounding(convert: Callable[..., Any]) -> Callable[..., Any]:
        def converted(self: Any, src: Any, dst_type: Any, *rest: Any) -> Any:
            source, wanted = src.dtype.scalar, dst_type.scalar
            if tl.bfloat16 not in (source, wanted) or source == wanted:
                return convert(self, src, dst_type, *rest)
            if source == tl.bfloat16:
                patterns = np.ascontiguousarray(src.data).astype(np.uint32) << 16
                wide = TensorHandle(patterns.view(np.float32), tl.float32)
                return wide if wanted == tl.float32 else convert(self, wide, dst_type, *rest)
            bits = np.ascontiguousarray(src.data).astype(np.float32).view(np.uint32)
            nearest = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
            quiet = ((bits >> 16) | 0x40).astype(np.uint16)
            return TensorHandle(
                np.where((bits & 0x7FFFFFFF) > 0x7F800000, quiet, nearest), tl.bfloat16
            )

        return converted

    for name in ("binary_op", "unary_op", "create_dot", "create_fma", "create_idiv"):
        setattr(builder, name, refusing(getattr(builder, name)))
    for name in ("cast_impl", "create_fp_to_fp"):
        setattr(builder, name, rounding(getattr(builder, name)))
    reducer.apply = refusing(reducer.apply)
