"""`./dev chaos`: the demo under faults, and the comparison at its end.

Flow: servers behind a proxy, stack, witness, workload -> first start through all failpoints of the copy -> the storm,
in an order that the seed gives -> all comes back -> tail -> verify -> table. Without `--minutes` the storm is every
failpoint and random kills, once for each isolation level (`deaths`); with it, every kind of fault (`faults`).

Always holds: a death is SIGKILL or SIGABRT, as in a crash. The local cloud itself never dies: it stands for S3, Glue
and Lambda. PostgreSQL stops as with `pg_ctl stop -m immediate`.
"""

from __future__ import annotations

from .build import build
from .bulk import BulkShopper
from .cloud import DATABASE, Cloud
from .console import say
from .deaths import Deaths
from .demo import compare_at_the_end
from .faults import Faults
from .patience import KeepingSupervisor, PatientWorkload
from .proxy import Proxy
from .runs import Run
from .sourcelog import Witness
from .storm import ChaosOptions
from .workload import Shopper, create_shop

SPECIAL_INTERVAL_SECONDS = 4.0


def chaos(options: ChaosOptions) -> int:
    """One run, or one for each isolation level; gives the exit code."""
    if options.build:
        build()
    if options.minutes is not None:
        return 0 if _run(options, None) else 1
    passed = [_run(options, isolation) for isolation in options.isolations]
    for isolation, good in zip(options.isolations, passed, strict=True):
        print(f"{isolation}: {'passed' if good else 'FAILED'}")
    return 0 if all(passed) else 1


def _run(options: ChaosOptions, isolation: str | None) -> bool:
    run = Run.create()
    with KeepingSupervisor(run.run_id, run.folder) as supervisor:
        cloud = Cloud(run, supervisor, Proxy(supervisor, options.seed))
        cloud.start_servers()
        create_shop(cloud.dsn())
        witness = Witness(cloud.postgres, DATABASE, run.folder)
        witness.open()
        shopper = Shopper if isolation else BulkShopper
        workload = PatientWorkload(cloud.dsn(), options.seed, options.rate, shopper)
        workload.start()
        storm: Deaths | Faults
        if isolation is None:
            storm = Faults(cloud, supervisor, workload, options)
        else:
            storm = Deaths(cloud, supervisor, workload, options, (isolation,))
        try:
            storm.first_start()
            workload.start_special(SPECIAL_INTERVAL_SECONDS)
            say(f"status page {cloud.status_page}   logs {run.folder}")
            storm.rage()
        finally:
            workload.stop()
        storm.calm()
        say(f"workload of seed {options.seed}: {workload.changes} rows, {workload.schema_changes} schema changes")
        verdict = compare_at_the_end(cloud, witness)
        print(f"seed {options.seed}, event source reads {isolation or 'either way, drawn at each of its starts'}")
        if isinstance(storm, Faults):
            return storm.report(verdict)
        return storm.report() and verdict.equal
