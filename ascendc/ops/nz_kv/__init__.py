"""AscendC nz_kv: kernel and host adapter."""
