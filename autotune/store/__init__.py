"""Every config that was measured, whoever measured it, with where the value comes from.

`record`        one measured config with its provenance
`reading`       the records of a study storage: the studies are the one place they live
`measurements`  an append-only file of records that came from elsewhere
`formats`       what can be imported and exported, and how a file is told apart
`t4`            the open autotuning results schema (T4) 1.0.0
`kernel_tuner`  Kernel Tuner's cache files and KTT's results
`aiter`         ROCm/aiter's tables of winners
`donors`        studies of neighbouring shapes and other devices, for a warm start
"""
