"""What `ci/bench` runs: sepconv beside its peers on this machine, in one run, contenders in turn.

`__main__` reads the options and keeps the order of things. `contender` starts the processes that are measured and talks
to them in JSON lines; `graphs`, `peers`, `models` and `first_call` are such processes, as is the Rust example `bench`.
`architectures` builds the whole models of `--models`.
`measuring` takes the times, `targets` says which goals they meet, `report` shows and stores them.
"""
