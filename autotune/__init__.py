"""Tuning: Optuna as study, storage and ask/tell over the enumerated legal configs of a family.

`study`       `tune`: all of it, from a request to a `TuneResult`; `plan`, `result`, `watch` beside it
`search`      the loop of one process: ask, gate, check, value, tell; `trials` what is stored of each
`sampling/`   what is tried next: the pool, the surrogate, the samplers, warm starts
`valuing/`    what a config is worth: gate, check, screening, sentinel, models, several objectives
`choosing/`   which config wins: finalists race, the rest is the tie set
`sharing/`    many processes on one study: storages, turns, claims, workers
`store/`      every measurement with its provenance, in and out of other tools' formats
`tables/`     dispatch tables: sweeps, the division into few ranges, regret
`simulation`  tuning on recorded spaces, for `replay`
"""
