"""Which config wins: finalists race in interleaved rounds."""
