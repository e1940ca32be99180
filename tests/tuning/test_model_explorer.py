"""Node data of `sensitivity --overlay` in Model Explorer itself, which is a program of its own.

`make test-explorer` installs it (780 MB) and runs these tests. MODEL_EXPLORER names the program.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import onnx
import pytest

import onnx_analog as oa
from onnx_analog import demo
from tests.browser import CHROMIUM, browser
from tests.graph.test_explorer import NESTED
from tests.models import proto
from tests.run.nets import rows

PROGRAM = shutil.which(os.environ.get("MODEL_EXPLORER", "model-explorer"))
pytestmark = [
    pytest.mark.slow(reason="starts Model Explorer and a browser: 2 min, 1 GB"),
    pytest.mark.skipif(PROGRAM is None, reason="Model Explorer is not installed; `make test-explorer` does it"),
]


@pytest.fixture(scope="module")
def server():
    """Start the server without a browser; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = ("--host=127.0.0.1", f"--port={port}", "--extensions=model_explorer_onnx", "--no_open_in_browser")
    process = subprocess.Popen([str(PROGRAM), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"{address}/check_health")
        yield address
    finally:
        process.kill()
        process.wait()


def fetched(what):
    with urllib.request.urlopen(what, timeout=120) as answer:
        return answer.read()


def wait_for(url, seconds=120):
    end = time.monotonic() + seconds
    while True:
        try:
            return fetched(url)
        except OSError:
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.5)


def ids_in(server, path):
    """Return the ids of the nodes of each graph, as the ONNX adapter gives them."""
    command = {
        "cmdId": "convert", "extensionId": "onnx_adapter", "modelPath": str(path), "settings": {},
        "deleteAfterConversion": False,
    }  # fmt: skip
    request = urllib.request.Request(
        f"{server}/apipost/v1/send_command", json.dumps(command).encode(), {"Content-Type": "application/json"}
    )
    graphs = json.loads(fetched(request))["graphs"]
    return {graph["id"]: {node["id"] for node in graph["nodes"]} for graph in graphs}


def strange(overlay, ids):
    """Return the keys of node data that no node has."""
    return {key for graph, data in overlay.items() for key in data["results"] if key not in ids.get(graph, ())}


@pytest.fixture(scope="module", params=["nested", "lenet", "protected lenet"])
def overlaid(request, tmp_path_factory):
    """Return a model's file, and that of its node data."""
    folder = tmp_path_factory.mktemp("explorer")
    path, data, how = folder / "model.onnx", rows(60).inputs["x"], {}
    if request.param == "nested":
        onnx.save(proto(NESTED), path)
    else:
        shutil.copy(demo.MODEL, path)
        data, how = demo.IMAGES, {"samples": 50, "mean": 0.1307, "std": 0.3081}
    if request.param.startswith("protected"):
        path = folder / "protected.onnx"
        oa.protect(demo.MODEL).save(path)
    found = oa.sensitivity(path, data, trials=1, all_but=0, by=["tensor"], **how)
    (folder / "hurts.json").write_text(json.dumps(found.overlay()), encoding="utf-8")
    assert all(found.users.of[harm.part.name] for harm in found.parts)
    return path, folder / "hurts.json"


def test_the_keys_are_nodes_of_the_graph_that_the_adapter_makes(server, overlaid):
    path, data = overlaid
    overlay, ids = json.loads(data.read_text(encoding="utf-8")), ids_in(server, path)
    (data_of_graph,) = overlay.values()
    assert data_of_graph["results"]
    assert strange(overlay, ids) == set()
    (graph,) = overlay
    assert strange({graph: {"results": {"conv9": {"value": 1.0}}}}, ids) == {"conv9"}
    assert strange({"another": data_of_graph}, ids) == set(data_of_graph["results"])


def shown(server, path, data, folder):
    """Return the numbers above 0 that the page shows beside nodes, as texts."""
    (graph,) = json.loads(data.read_text(encoding="utf-8"))
    pane = {
        "deepestExpandedGroupNodeIds": [], "selectedNodeId": "", "selectedGraphId": graph,
        "selectedCollectionLabel": path.name, "widthFraction": 1,
    }  # fmt: skip
    sources = {
        "models": [{"url": str(path)}], "nodeData": [str(data)], "nodeDataTargets": [""],
        "uiState": {"paneStates": [pane]},
    }  # fmt: skip
    with browser(folder) as opened:
        page = f"{server}/?data={urllib.parse.quote(json.dumps(sources))}"
        text = opened.text(page, until="\nNode data\n")
    assert "\nNode data\n" in text, text[-500:]
    listed = text.split("\nNode data\n")[1]
    return sorted(
        float(value) for value in re.findall(r"^\d+\t[\w()]+\t([\d.e-]+)$", listed, re.MULTILINE) if value != "-"
    )


@pytest.mark.skipif(CHROMIUM is None, reason="no headless Chromium is installed")
def test_a_browser_shows_the_shares_beside_the_nodes(server, overlaid, tmp_path):
    path, data = overlaid
    ((_, of_graph),) = json.loads(data.read_text(encoding="utf-8")).items()
    shares = of_graph["results"]
    assert shown(server, path, data, tmp_path / "profile") == pytest.approx(
        sorted(each["value"] for each in shares.values())
    )


@pytest.mark.skipif(CHROMIUM is None, reason="no headless Chromium is installed")
def test_keys_of_no_node_are_not_shown(server, overlaid, tmp_path):
    path, data = overlaid
    (graph,) = json.loads(data.read_text(encoding="utf-8"))
    wrong = {graph: {"results": {"conv9": {"value": 1.5}}}}
    Path(tmp_path / "wrong.json").write_text(json.dumps(wrong), encoding="utf-8")
    assert shown(server, path, tmp_path / "wrong.json", tmp_path / "profile") == []
