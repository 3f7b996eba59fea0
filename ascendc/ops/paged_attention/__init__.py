"""AscendC paged_attention: kernel, plan of tasks, and host adapter."""
