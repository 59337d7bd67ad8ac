"""firn on one machine: real PostgreSQL, real Kafka, a local cloud, and the comparison of source log and lake.

`./dev` is the door. Nothing here ships: the agent, the functions and the event source are Rust programs of this
repository, which this package builds, starts, feeds, watches and checks.
"""
