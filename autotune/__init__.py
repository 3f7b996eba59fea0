"""Tuning: Optuna as study, storage and ask/tell over the enumerated legal configs of a family.

`pool`       the legal configs, numbered, with neighbours and features
`samplers`   what proposes the next config: never an illegal one, never one already tried
`objective`  what a config is worth: measured time, twin cycles, or a static score, each with its evidence
`storage`    where studies are kept: a journal file, or any database URL
`search`     the loop of one process: ask, gate, check, time, tell
`final`      the default against the best, in interleaved pairs; the tie set
`study`      `tune`, which does all of it and returns a `TuneResult`
"""
