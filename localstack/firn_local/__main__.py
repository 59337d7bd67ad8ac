"""The subcommands of `./dev` that need the Python environment."""

from __future__ import annotations

import argparse
import signal
import sys

from .console import say
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


def main() -> int:
    """Reads the command line and runs one subcommand."""
    parser = argparse.ArgumentParser(prog="./dev")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("up", help="only PostgreSQL, Kafka and the local cloud").set_defaults(run=up)
    commands.add_parser("env", help="environment of what runs, for a shell").set_defaults(run=env)
    arguments = parser.parse_args()
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
