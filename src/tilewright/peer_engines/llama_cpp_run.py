"""llama.cpp for `worker`: its C interface, through the libraries that node-llama-cpp builds for every processor.

Parameters are passed by value, as opaque memory that is larger than any version's: on x86-64 it lies on the stack, and
the callee reads what it knows. The fields that are set stand first and are checked against their defaults.
With `quantize` in the options, the file is written there in that type first, by llama.cpp itself.
"""

import ctypes as C
from pathlib import Path
from typing import Any

import worker  # type: ignore[import-not-found]

FTYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "bf16": 32}


class Opaque(C.Structure):
    _fields_ = [("ints", C.c_int32 * 256)]


class Batch(C.Structure):
    _fields_ = [
        ("count", C.c_int32),
        ("token", C.POINTER(C.c_int32)),
        ("embd", C.c_void_p),
        ("pos", C.POINTER(C.c_int32)),
        ("n_seq", C.POINTER(C.c_int32)),
        ("seq", C.POINTER(C.POINTER(C.c_int32))),
        ("wanted", C.POINTER(C.c_int8)),
    ]


def library(site: Path) -> Any:
    """libllama with the processor's fastest build of ggml."""
    place = next(site.glob("**/libllama.v*.so")).parent
    C.CDLL(str(place / "libggml-base.so"), C.RTLD_GLOBAL)
    ggml = C.CDLL(str(next(place.glob("libggml.v*.so"))), C.RTLD_GLOBAL)
    ggml.ggml_backend_load_all_from_path(str(place).encode())
    llama = C.CDLL(str(next(place.glob("libllama.v*.so"))), C.RTLD_GLOBAL)
    for name in ("model", "context", "model_quantize"):
        getattr(llama, f"llama_{name}_default_params").restype = Opaque
    for name, takes in {
        "model_load_from_file": [C.c_char_p, Opaque],
        "init_from_model": [C.c_void_p, Opaque],
        "get_memory": [C.c_void_p],
        "model_get_vocab": [C.c_void_p],
    }.items():
        function = getattr(llama, f"llama_{name}")
        function.argtypes, function.restype = takes, C.c_void_p
    llama.llama_batch_init.restype = Batch
    llama.llama_decode.argtypes = [C.c_void_p, Batch]
    llama.llama_memory_clear.argtypes = [C.c_void_p, C.c_bool]
    llama.llama_set_n_threads.argtypes = [C.c_void_p, C.c_int32, C.c_int32]
    llama.llama_vocab_n_tokens.argtypes = [C.c_void_p]
    llama.llama_get_logits_ith.argtypes = [C.c_void_p, C.c_int32]
    llama.llama_get_logits_ith.restype = C.POINTER(C.c_float)
    return llama


def quantize(llama: Any, source: str, target: Path, kind: str) -> None:
    """Write a file in another type. Its values are rounded twice: for timing."""
    made = target.with_suffix(".partial")
    params = llama.llama_model_quantize_default_params()
    if list(params.ints[2:4]) != [params.ints[2]] * 2 or not 0 <= params.ints[1] < 256:
        raise SystemExit("this libllama has other parameters to quantize than those known here")
    params.ints[1] = FTYPES[kind]
    C.cast(C.byref(params), C.POINTER(C.c_uint8))[16] = 1  # allow_requantize
    if llama.llama_model_quantize(source.encode(), str(made).encode(), C.byref(params)):
        raise SystemExit(f"llama.cpp cannot write {source} as {kind}")
    made.rename(target)


def load(options: Any) -> Any:
    """See `worker.serve`."""
    import sys

    import numpy as np

    llama = library(Path(sys.argv[1]))
    model = options["model"]
    if target := options.get("quantize"):
        if not Path(target).is_file():
            quantize(llama, model, Path(target), options["weights"])
        model = target
    loaded = llama.llama_model_load_from_file(model.encode(), llama.llama_model_default_params())
    if not loaded:
        raise SystemExit(f"llama.cpp does not load {model}")
    params, most, context = (
        llama.llama_context_default_params(),
        options["batch"],
        options["context"],
    )
    if list(params.ints[:4]) != [512, 2048, 512, 1]:
        raise SystemExit(f"this libllama has other parameters of a context: {params.ints[:4]}")
    params.ints[0], params.ints[1], params.ints[3] = most * context, max(2048, context), most
    made = llama.llama_init_from_model(loaded, params)
    if not made:
        raise SystemExit(f"llama.cpp makes no context of {most} requests of {context} tokens")
    llama.llama_set_n_threads(made, options["threads"], options["threads"])
    vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(loaded))
    batch = llama.llama_batch_init(params.ints[1], 0, 1)
    past: list[int] = []
    last: list[int] = []

    def decode(rows: Any) -> Any:
        """Compute (sequence, tokens) and give each one's most likely next token."""
        n, ends = 0, []
        for sequence, tokens in rows:
            for token in tokens:
                batch.token[n], batch.pos[n], batch.n_seq[n] = token, past[sequence], 1
                batch.seq[n][0], batch.wanted[n] = sequence, 0
                past[sequence] += 1
                n += 1
            batch.wanted[n - 1] = 1
            ends.append(n - 1)
        batch.count = n
        if code := llama.llama_decode(made, batch):
            raise SystemExit(f"llama_decode ended with {code}")
        rows_of = (llama.llama_get_logits_ith(made, i) for i in ends)
        last[:] = [int(np.ctypeslib.as_array(row, (vocab,)).argmax()) for row in rows_of]
        return [[token] for token in last]

    def drop() -> None:
        llama.llama_memory_clear(llama.llama_get_memory(made), True)

    def start(prompts: Any) -> Any:
        past[:] = [0] * len(prompts)
        return decode(enumerate(prompts))

    return start, lambda: decode(enumerate([token] for token in last)), drop


if __name__ == "__main__":
    worker.serve(load)
