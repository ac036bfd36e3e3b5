"""`python -m sepconv`: one command for each line of the table."""

import argparse
import importlib
import sys

COMMANDS = {
    "rewrite": ("sepconv._rewrite_command", "put sepconv's op into a SavedModel or a frozen graph, with the same bits"),
    "restore": ("sepconv._restore_command", "put TensorFlow's own operations back in its place"),
}


def main() -> int:
    from sepconv import BadModel

    parser = argparse.ArgumentParser(prog="python -m sepconv", description="Models with sepconv's op.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (module, help) in COMMANDS.items():
        command = importlib.import_module(module)
        subparser = commands.add_parser(name, help=help, description=command.__doc__)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    arguments = parser.parse_args()
    try:
        return arguments.run(arguments)
    except BadModel as error:
        print(f"sepconv: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sepconv: error: interrupted", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
