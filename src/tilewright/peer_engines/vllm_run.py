"""vLLM for `worker`: its engine in this process, eager, prefix caching off."""

import os
from typing import Any

import worker  # type: ignore[import-not-found]


def load(options: Any) -> Any:
    """See `worker.serve`."""
    cpus = sorted(os.sched_getaffinity(0))
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cpus)),
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
    }
    from vllm import (  # type: ignore[import-not-found]
        EngineArgs,
        LLMEngine,
        SamplingParams,
    )

    most, context = options["batch"], options["context"]
    engine = LLMEngine.from_engine_args(
        EngineArgs(
            model=options["model"],
            dtype={"bf16": "bfloat16", "fp32": "float32"}[options["weights"]],
            skip_tokenizer_init=True,
            enforce_eager=True,
            enable_prefix_caching=False,
            max_num_seqs=most,
            max_model_len=context,
            max_num_batched_tokens=max(2048, context),
        )
    )
    wanted = SamplingParams(temperature=0, max_tokens=context, ignore_eos=True, detokenize=False)
    seen: dict[str, int] = {}
    numbers = iter(range(1 << 62))

    def step() -> Any:
        """One step of the engine; each request's new token."""
        tokens = {}
        for out in engine.step():
            ids = out.outputs[0].token_ids
            tokens[out.request_id] = list(ids[seen[out.request_id] :])
            seen[out.request_id] = len(ids)
        found = [tokens.get(name, []) for name in seen]
        if any(len(new) != 1 for new in found):
            raise SystemExit(f"a step of vLLM brought {[len(n) for n in found]} tokens")
        return found

    def drop() -> None:
        if seen:
            engine.abort_request(list(seen))
        seen.clear()

    def start(prompts: Any) -> Any:
        for ids in prompts:
            name = str(next(numbers))
            engine.add_request(name, {"prompt_token_ids": ids}, wanted)
            seen[name] = 0
        return step()

    return start, step, drop


if __name__ == "__main__":
    worker.serve(load)
