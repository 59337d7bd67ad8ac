"""The subcommands of `./dev` that need the Python environment."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable

from .console import duration, say
from .processes import ServiceError, Supervisor
from .provision import tool_env
from .runs import Run
from .services import Kafka, Ministack, Postgres


def up(_arguments: argparse.Namespace) -> int:
    """Starts the three servers and keeps them until Ctrl-C."""
    run = Run.create()
    with Supervisor(run.run_id, run.folder) as supervisor:
        postgres, kafka, ministack = Postgres(supervisor), Kafka(supervisor), Ministack(supervisor)
        postgres.start()
        kafka.start()
        ministack.start()
        run.publish(
            env={
                **tool_env(),
                **ministack.client_env(),
                "FIRN_AWS_ENDPOINT": ministack.endpoint,
                "FIRN_KAFKA": kafka.bootstrap,
                "FIRN_POSTGRES": postgres.dsn(),
            }
        )
        say(f"up: {postgres.dsn()} | kafka {kafka.bootstrap} | cloud {ministack.endpoint}")
        say('in another terminal: eval "$(./dev env)"; Ctrl-C ends it')
        while True:
            supervisor.check()
            signal.sigtimedwait([], 1)


def env(_arguments: argparse.Namespace) -> int:
    """Prints the environment of the running servers, or of the tools alone, as shell assignments."""
    run = Run.current()
    facts = run.facts().get("env") if run.script_pid() else None
    for name, value in (facts or tool_env()).items():
        print(f"export {name}='{value}'")
    return 0


def run_demo(arguments: argparse.Namespace) -> int:
    """Runs the demo."""
    from .demo import DemoOptions, demo

    return demo(DemoOptions(arguments.seconds, arguments.seed, arguments.rate, not arguments.no_build))


def run_chaos(arguments: argparse.Namespace) -> int:
    """Kills everything."""
    from .chaos import ChaosOptions, chaos
    from .storm import ISOLATIONS

    isolations = ISOLATIONS if arguments.isolation == "both" else (arguments.isolation,)
    rate = arguments.rate or (400 if arguments.minutes is None else 1500)
    options = ChaosOptions(
        seconds=arguments.seconds,
        minutes=arguments.minutes,
        seed=arguments.seed,
        rate=rate,
        build=not arguments.no_build,
        kills=arguments.kills,
        isolations=isolations,
    )
    return chaos(options)


def run_query(arguments: argparse.Namespace) -> int:
    """Asks the lake."""
    from .query import query

    return query(arguments.sql)


def run_test(arguments: argparse.Namespace) -> int:
    """Runs the gate."""
    from .gate import gate

    return gate(arguments.only)


def run_bench(arguments: argparse.Namespace) -> int:
    """Measures."""
    from .bench import bench

    return bench(arguments.what, arguments.rest)


def run_model(arguments: argparse.Namespace) -> int:
    """Searches the protocol's model."""
    from .bench import model

    return model(arguments.only)


def run_simulate(arguments: argparse.Namespace) -> int:
    """Simulates."""
    from .simulate import simulate

    return simulate(arguments.seeds, arguments.first, arguments.mutants)


def run_package(arguments: argparse.Namespace) -> int:
    """Builds what ships."""
    from .package import package

    return package(arguments.arm64)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="./dev")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=run)
        return command

    command = add("demo", run_demo, "the whole pipeline, watched; with --for, compared at the end")
    command.add_argument("--for", dest="seconds", type=duration, help="end the workload after this long: 60s, 5m")
    command.add_argument("--seed", type=int, default=1, help="of the workload")
    command.add_argument("--rate", type=float, default=800, help="changes a second")
    command.add_argument("--no-build", action="store_true", help="take the Rust programs as they are")
    command = add("chaos", run_chaos, "the demo under faults, compared at the end")
    command.add_argument(
        "--minutes", type=float, help="every kind of fault for so long, instead of every failpoint once"
    )
    command.add_argument("--for", dest="seconds", type=duration, default=120, help="at least this long: 120s, 5m")
    command.add_argument("--seed", type=int, default=1, help="of the workload, the kills and the faults")
    command.add_argument("--rate", type=float, help="changes a second (400; with --minutes 1500)")
    command.add_argument("--kills", type=int, default=20, help="at random, beside those at failpoints")
    command.add_argument("--no-build", action="store_true", help="take the Rust programs as they are")
    command.add_argument(
        "--isolation",
        default="both",
        choices=("read_committed", "read_uncommitted", "both"),
        help="what the event source reads; both is one run after the other, with --minutes drawn at each start",
    )
    command = add("test", run_test, "everything that must pass")
    command.add_argument("--only", action="append", help="only this step, may be repeated")
    command = add("query", run_query, "SQL over the lake of the running, or the last, demo")
    command.add_argument("sql")
    command = add("bench", run_bench, "what it costs: speed beside a floor, requests, latencies")
    command.add_argument("what", choices=("agent", "ingest", "commit"))
    command.add_argument("rest", nargs=argparse.REMAINDER)
    command = add("model", run_model, "the protocol, searched: every fault family, every pair, every mutant")
    command.add_argument("only", nargs="*", help="names of families, pairs or mutants, as it prints them")
    command = add("simulate", run_simulate, "production code in one process, under every fault that a seed draws")
    command.add_argument("--seeds", type=int, default=1000, help="how many, one after the other")
    command.add_argument("--from", dest="first", type=int, default=1, help="the first of them")
    command.add_argument("--mutants", action="store_true", help="instead: shows that each mutant is caught")
    command = add("package", run_package, "the functions' bootstraps as they go to AWS")
    command.add_argument("--arm64", action="store_true", help="for Graviton")
    add("up", up, "only PostgreSQL, Kafka and the local cloud")
    add("env", env, "environment of what runs, for a shell")
    return top


def main() -> int:
    """Reads the command line and runs one subcommand."""
    arguments = parser().parse_args()
    try:
        return arguments.run(arguments)
    except ServiceError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
