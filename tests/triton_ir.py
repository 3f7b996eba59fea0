"""What Triton makes of a launch from Python, without a GPU: its own specialisation of arguments, up to its first IR."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

SM_80 = GPUTarget("cuda", 80, 32)


def ttir(kernel: Any, args: Sequence[Any], constexprs: Mapping[str, Any]) -> str:
    """The IR of `kernel[grid](*args, **constexprs)` as the compiler writes it first, nothing folded."""
    backend = make_backend(SM_80)
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialised, _ = bind(*args, **constexprs)
    options, signature, fixed, attrs = kernel._pack_args(
        backend, dict(constexprs), bound, specialised, {}
    )
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    source = ASTSource(kernel, signature, fixed, attrs)
    functions = backend.get_codegen_implementation(options)
    return str(source.make_ir(SM_80, options, functions, backend.get_module_map(), context))


def narrow_products(text: str, name: str) -> list[str]:
    """Lines that multiply 32-bit parameters whose name matches `name`, or a tensor of one."""
    found = []
    for body in re.split(r"\btt\.func\b", text)[1:]:
        head = body.split("\n", 1)[0]
        names = re.findall(rf"%({name}): i32", head)
        for line in body.splitlines()[1:]:
            made = re.match(r"\s*%([\w-]+) = tt\.splat %([\w-]+) : i32", line)
            if made and made[2] in names:
                names.append(made[1])
            product = re.match(r"\s*%[\w-]+ = arith\.muli %([\w-]+), %([\w-]+)", line)
            if product and (product[1] in names or product[2] in names):
                found.append(line.strip())
    return found
