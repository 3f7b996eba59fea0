"""OpenVINO GenAI for `worker`: continuous batching on the GGUF file as OpenVINO itself reads it, prefix caching off."""

from typing import Any

import worker  # type: ignore[import-not-found]


def load(options: Any) -> Any:
    """See `worker.serve`."""
    import numpy as np
    import openvino as ov  # type: ignore[import-not-found]
    import openvino_genai as genai  # type: ignore[import-not-found]

    most, context = options["batch"], options["context"]
    plan = genai.SchedulerConfig()
    plan.max_num_batched_tokens = max(2048, context)
    plan.max_num_seqs = most
    plan.cache_size = 1
    plan.enable_prefix_caching = False
    plan.dynamic_split_fuse = True
    settings = {"INFERENCE_NUM_THREADS": options["threads"]}
    pipe = genai.ContinuousBatchingPipeline(options["model"], plan, "CPU", settings)
    wanted = genai.GenerationConfig(max_new_tokens=context, ignore_eos=True, do_sample=False)
    running: list[Any] = []
    numbers = iter(range(1 << 62))

    def step() -> Any:
        """One step of the pipeline; each request's new token."""
        pipe.step()
        found = [[t for out in h.read().values() for t in out.generated_ids] for h in running]
        if any(len(new) != 1 for new in found):
            raise SystemExit(f"a step of OpenVINO GenAI brought {[len(n) for n in found]} tokens")
        return found

    def drop() -> None:
        for handle in running:
            handle.cancel() if hasattr(handle, "cancel") else handle.drop()
        if running and pipe.has_non_finished_requests():
            pipe.step()
        running.clear()

    def start(prompts: Any) -> Any:
        running[:] = [
            pipe.add_request(next(numbers), ov.Tensor(np.array([ids], dtype=np.int64)), wanted)
            for ids in prompts
        ]
        return step()

    return start, step, drop


if __name__ == "__main__":
    worker.serve(load)
