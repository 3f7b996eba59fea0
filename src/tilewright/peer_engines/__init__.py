"""Other inference engines, each in the environment of its toolchain: a process that reads and writes JSON."""
