"""Every command that prints, called once on a small network: what it printed and wrote."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from contextlib import chdir
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog.cli import main, printing
from onnx_analog.graph.files import load
from onnx_analog.tuning import candidates
from tests.far_side import FarArray, write_npz
from tests.models import proto, run

NAME = "encoder_block_0_attention_query_weight"
NET = f"""
    net (float[n, 64] x) => (float[n, 10] y)
    <float[64, 128] {NAME} = random, float[128, 10] head = 0.3 random, float[10] bias = random> {{
        h = MatMul(x, {NAME})
        r = Relu(h)
        y = Gemm(r, head, bias)
    }}"""
PROTECTED, DATA = "model.protected.onnx", "--data test.npz"
COMMANDS = {  # in an order in which each finds the files that it reads
    "channel list": "channel list",
    "channel show": "channel show pcm-drift --read-after 1d",
    "channel fit": "channel fit pairs.csv --input volts --output ohms --log output",
    "inspect": "inspect model.onnx",
    "prune": "prune model.onnx --sparsity 0.5",
    "remember": "remember model.onnx --mean 0.5 --std 0.5 --output remembers.onnx",
    "protect": "protect model.onnx --save-plan model.plan.json",
    "protect, entropy-coded": "protect model.onnx --classes 255 --partition uniform --sign level --cells 0 "
    "--entropy context --code bch --output coded.protected.onnx",
    "plan show": f"plan show {PROTECTED}",
    "manifest": f"manifest {PROTECTED}",
    "manifest, image": f"manifest {PROTECTED} --write-image cells.csv",
    "evaluate": f"evaluate {PROTECTED} {DATA} --trials 3 --limit --reference model.onnx",
    "check": f"check model.onnx {DATA} --max-drop 30",
    "sensitivity": f"sensitivity model.onnx {DATA} --trials 2 --csv harms.csv --overlay overlay.json",
    "readback": f"readback {PROTECTED} --trials 2 --statistics simulated.json {DATA}",
    "readback, measured": f"readback {PROTECTED} --measured reads.npz --unit scaled --statistics measured.json {DATA}",
    "compare": "compare measured.json simulated.json",
    "sweep": f"sweep model.onnx {DATA} --strategy raw,redundancy --cells 1,3,10 --trials 2 --engine serial --rivals "
    "--plan model.plan.json --out swept",
    "sweep, limit": f"sweep model.onnx {DATA} --strategy mapping --grid granularity=tensor,channel --cells 1 "
    "--trials 2 --engine serial --limit --out limited",
    "tune": f"tune model.onnx {DATA} --max-drop 20 --trials 2 --out tuned.plan.json",
    "demo": "demo --trials 1",
}  # fmt: skip


class Called(NamedTuple):
    """What a command printed: texts and tables in their order, all as one text in a pipe, and its errors."""

    things: list[Any]
    stdout: str
    stderr: str


@cache
def everything() -> tuple[Path, dict[str, Called]]:
    """Return the folder with all files, and what each of `COMMANDS` printed."""
    folder = Path(tempfile.mkdtemp(prefix="onnx-analog-everything-"))
    _write_inputs(folder)
    with pytest.MonkeyPatch.context() as patch, chdir(folder):
        patch.setattr(candidates, "STEPS", candidates.STEPS[::4])
        images = demo.images
        patch.setattr(demo, "images", lambda network: images(network).head(200))
        patch.setattr(demo, "cheapest_plan", lambda **_: oa.tune("model.onnx", "test.npz", max_drop=20, trials=2))
        return folder, {name: _call(line, patch) for name, line in COMMANDS.items()}


def remove() -> None:
    """Remove the folder, if there is one."""
    if everything.cache_info().currsize:
        shutil.rmtree(everything()[0])
        everything.cache_clear()


def _call(line: str, patch: pytest.MonkeyPatch) -> Called:
    if line.startswith("readback") and "reads.npz" in line and not Path("reads.npz").exists():
        array = FarArray(Path("cells.csv"))
        write_npz(Path("reads.npz"), array, array.read())
    things: list[Any] = []
    real = printing.console

    def recording(*, stderr: bool = False) -> Any:
        made: Any = real(stderr=stderr)
        shown = made.print

        def print_and_keep(thing: Any, **how: Any) -> None:
            things.append(thing)
            shown(thing, **how)

        if not stderr:
            made.print = print_and_keep
        return made

    patch.setattr(printing, "console", recording)
    ended = CliRunner().invoke(main, shlex.split(line), prog_name="onnx-analog")
    patch.setattr(printing, "console", real)
    assert ended.exit_code in (0, 4), (line, ended.output)
    return Called(things, ended.stdout, ended.stderr)


def _write_inputs(folder: Path) -> None:
    rng = np.random.default_rng(0)
    onnx.save(proto(NET), folder / "model.onnx")
    x = rng.normal(size=(400, 64)).astype(np.float32)
    np.savez(folder / "test.npz", x=x, y=run(load(folder / "model.onnx"), {"x": x})[0].argmax(axis=1))
    volts = np.repeat(np.linspace(0.5, 2.0, 40), 20)
    ohms = 1e4 * volts**2 * np.exp(0.1 * rng.normal(size=volts.size))
    rows = "\n".join(f"{v:.4f},{r:.6g}" for v, r in zip(volts, ohms, strict=True))
    (folder / "pairs.csv").write_text(f"volts,ohms\n{rows}\n", encoding="utf-8")
