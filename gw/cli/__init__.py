"""The command `gw`: serve (the default), check a configuration, import one from JSON, drill it against faults."""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from gw.errors import ConfigError
from gw.near import near

COMMANDS = ("serve", "check", "import", "explain", "drill")
_LISTED = ", ".join(COMMANDS)
_CONFIG_HELP = "the configuration (default: $BACKENDS_CONFIG, else ./gateway.toml, else built-in defaults)"
_EPILOG = """\
environment variables set the same things; the README lists them. A flag wins over a variable, a variable over
`.env` beside the file, that over the file.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. The exit status: 0 well, 1 the configuration is wrong, 2 the command line is.

    For `drill` 1 is a fault that was not survived, and 2 is both of the others.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version")):
        arguments.insert(0, "serve")
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ConfigError as error:
        print_problems(error)
        return 1
    except BrokenPipeError:
        # Whoever read our output has what it wanted (`gw import ... | head`); nothing is left to be flushed there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Parser(argparse.ArgumentParser):
    """argparse, with the nearest right command for a mistyped one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=_formatter)

    def error(self, message: str) -> NoReturn:
        mistyped = re.search(r"argument COMMAND: invalid choice: '([^']*)'", message)
        if mistyped is not None:
            message = f'there is no command "{mistyped[1]}"{near(mistyped[1], COMMANDS)} (there are: {_LISTED})'
        self.exit(2, f"{self.prog}: {message}\n{self.format_usage()}{self.prog} --help says more\n")


def _formatter(prog: str) -> argparse.HelpFormatter:
    # argparse makes one for every option, to check its name; one that has to find out how wide the terminal is loads
    # shutil, and that the decompressors.
    return argparse.HelpFormatter(prog, width=_columns() - 2)


def _columns() -> int:
    """How wide the terminal is, as shutil tells it."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    try:
        return os.get_terminal_size().columns or 80
    except OSError:  # a file or a pipe
        return 80


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gw", description="An OpenAI-compatible gateway to language models.", epilog=_EPILOG)
    parser.add_argument("--version", action=_Version, nargs=0, help="tell the version")
    commands = parser.add_subparsers(metavar="COMMAND")
    serve = commands.add_parser("serve", help="answer requests (the default command)", epilog=_EPILOG)
    check = commands.add_parser("check", help="tell everything that is wrong with a configuration; asks nobody")
    explained = commands.add_parser("explain", help="tell which backend a request would go to and why; asks nobody")
    explained.add_argument("--json", action="store_true", help="as JSON")
    explained.add_argument("request", nargs=argparse.REMAINDER, help="a file with the JSON body, -, or a curl command")
    explained.set_defaults(run=partial(_explain, explained))
    for command in (serve, check, explained):
        command.add_argument("--config", metavar="FILE", type=Path, help=_CONFIG_HELP)
        command.add_argument("--host", metavar="H", help="the address to bind (default 127.0.0.1)")
        command.add_argument("--port", metavar="N", type=_port, help="the port to bind (default 3456; 0: a free one)")
    serve.add_argument("--workers", metavar="N", type=_count, help="how many processes (default 1)")
    serve.set_defaults(run=_serve)
    check.set_defaults(run=_check)
    drilled = commands.add_parser("drill", help="play every fault of a provider against a configuration; asks nobody")
    drilled.add_argument("--config", metavar="FILE", type=Path, help=_CONFIG_HELP)
    drilled.add_argument("--only", metavar="FAULT", action="append", default=[], help="this fault; may be repeated")
    drilled.add_argument("--dialect", choices=("openai", "anthropic"), action="append", help="default: both")
    drilled.add_argument("--model", metavar="NAME", help="what the requests ask for (default: nothing; gw decides)")
    drilled.add_argument("--json", action="store_true", help="as JSON")
    drilled.set_defaults(run=_drill, host=None, port=None)
    imported = commands.add_parser("import", help="turn backends.json or config.json into gateway.toml, on stdout")
    imported.add_argument("file", metavar="FILE", help="the JSON file, comments allowed; - reads standard input")
    imported.set_defaults(run=_import)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        from importlib.metadata import version  # reads the installed distributions: only when asked for

        print(f"gw {version('gw')}")
        parser.exit()


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, found {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {text!r}")
    return int(text)


def locate(given: Path | None, environ: Mapping[str, str], here: Path) -> tuple[Path | None, Path | None]:
    """The configuration to read, and the folder of its `.env` and relative paths where that is not its own.

    A flag, else BACKENDS_CONFIG (of the process, or of `.env` in this folder), else gateway.toml here, else none.
    """
    from gw import dotenv

    if given is not None:
        return given, None
    variable = environ.get("BACKENDS_CONFIG") or dotenv.read(here / ".env").get("BACKENDS_CONFIG")
    if variable:
        return here / Path(variable).expanduser(), here
    if (here / "gateway.toml").is_file():
        return here / "gateway.toml", here
    return None, here


def read_config(options: argparse.Namespace, more: Mapping[str, str] | None = None) -> Any:
    """The Config that flags, variables (and `more` of them) and files say. Raises ConfigError."""
    from gw.config import read

    source, folder = locate(options.config, os.environ, Path.cwd())
    flags = {"server.host": options.host, "server.port": options.port, "server.workers": vars(options).get("workers")}
    overrides = {path: value for path, value in flags.items() if value is not None}
    config = read(source, environ={**os.environ, **(more or {})}, overrides=overrides, folder=folder)
    for name, value in config.dotenv.items():
        os.environ.setdefault(name, value)  # where libraries and child programs look (gw.reload.export, later on)
    return config


def print_problems(error: ConfigError) -> None:
    """Every problem on a line of its own, on stderr."""
    count = len(error.problems)
    print(f"the configuration has {count} problem{'s' if count > 1 else ''}:", file=sys.stderr)
    for problem in error.problems:
        print(f"  {problem}", file=sys.stderr)


def _serve(options: argparse.Namespace) -> int:
    gc.disable()  # what is loaded stays: to look for garbage in it, now and later on, takes 8 % of the start
    try:
        config = read_config(options)
        from gw.supervisor import serve  # the server and all it needs: not for `check` and `import`

        gc.freeze()
    finally:
        gc.enable()
    return int(serve(config))


def _check(options: argparse.Namespace) -> int:
    from gw.cli.check import check

    return check(read_config(options))


def _explain(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from gw.cli.explain import explain_request

    first, *others = options.request or [None]
    if others and first != "curl":  # what follows a file is for gw: argparse ends its own options there
        parser.parse_args([*others, first], options)
    return explain_request(read_config(options), options.request, as_json=options.json)


def _drill(options: argparse.Namespace) -> int:
    from gw.cli.drill import drill
    from gw.cli.drill.plans import stand_ins

    try:
        source, _ = locate(options.config, os.environ, Path.cwd())
        config = read_config(options, stand_ins(source, os.environ))
        return drill(config, only=options.only, dialects=options.dialect, model=options.model, as_json=options.json)
    except ConfigError as error:
        print_problems(error)
        return 2  # 1 says that the drill has found something
    except KeyboardInterrupt:
        return 130  # a shell's word for it: 128 and the signal's number


def _import(options: argparse.Namespace) -> int:
    from gw.cli.import_ import import_file

    return import_file(options.file)
