"""One process that imports everything once, and forks a child for each command: imports take longer than most tests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FORKING = """
import json, os, resource, signal, sys, traceback
import onnx_analog.api, onnx_analog.cli.report, onnx_analog.study.engines.local, onnx_analog.channels.fitting, tomli_w
from onnx_analog.cli import main

def run(folder, arguments, memory, seconds):
    os.chdir(folder)
    for number, name in enumerate(("/dev/null", "{0}.out", "{0}.err")):
        opened = os.open(name.format(folder), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    signal.alarm(300)
    sys.argv = ["onnx-analog", *arguments]
    main(arguments, prog_name="onnx-analog")

for line in sys.stdin:
    child = os.fork()
    if not child:
        code = 1
        try:
            run(*json.loads(line))
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
QUIET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}  # each thread takes room

Bounded = Callable[..., "subprocess.CompletedProcess[str]"]


@contextmanager
def forking() -> Iterator[Bounded]:
    """Give a function that runs a command, which may take so many bytes and seconds beyond its imports."""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", FORKING]
    with subprocess.Popen(command, env={**os.environ, **QUIET}, text=True, **pipes) as parent:

        def run(folder: Path, line: str, *, memory: int, seconds: int) -> "subprocess.CompletedProcess[str]":
            assert parent.stdin is not None
            assert parent.stdout is not None
            print(json.dumps([str(folder), line.split(), memory, seconds]), file=parent.stdin, flush=True)
            code = int(parent.stdout.readline())
            out, err = (Path(f"{folder}.{name}").read_text(encoding="utf-8") for name in ("out", "err"))
            return subprocess.CompletedProcess(line, code, out, err)

        yield run
