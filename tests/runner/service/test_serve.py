"""The command: whom it lets in, how it ends, what happens when a model's process dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from kandinsky_mindir.runner import UserError, cli
from kandinsky_mindir.runner.service.drawing.preview import Preview
from kandinsky_mindir.runner.service.settings import Settings, read_key, require_safe
from served import STEPS, held, served, wait

LONG = "x" * 20


@pytest.mark.parametrize("host, key, anyone, message", [
    ("0.0.0.0", None, False, "--let-anyone-call"), ("::", None, False, "--let-anyone-call"), ("192.168.1.1", None, False, "key"),
    ("example.com", None, False, "is no address"), ("0.0.0.0", LONG, False, None), ("0.0.0.0", None, True, None),
    ("127.0.0.1", None, False, None), ("::1", None, False, None), ("localhost", None, False, None),
])  # fmt: skip
def test_it_does_not_open_itself_to_others(host, key, anyone, message):
    if message is None:
        require_safe(host, key, anyone)
        return
    with pytest.raises(UserError, match=message):
        require_safe(host, key, anyone)


def test_keys(tmp_path):
    (tmp_path / "key").write_text(f"{LONG}\n")
    assert read_key(tmp_path / "key", {}) == LONG and read_key(None, {}) is None
    assert read_key(None, {"KANDINSKY_MINDIR_KEY": LONG}) == LONG
    for content in (b"short", b"", b"with some spaces in it", b"\xff" * 30):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(UserError, match="the key in"):
            read_key(tmp_path / "bad", {})
    with pytest.raises(UserError, match="cannot be read"):
        read_key(tmp_path / "none", {})


@pytest.mark.parametrize("host, ours", [
    ("localhost", True), ("localhost:8000", True), ("LOCALHOST", True), ("127.0.0.1:8000", True), ("[::1]:8000", True),
    ("10.0.0.7", True), ("box.lan", True), ("evil.example", False), ("", False), ("localhost.evil.example", False),
    ("[evil]", False), ("127.0.0.1.evil.example", False),
])  # fmt: skip
def test_names_of_this_machine(host, ours):
    assert Settings(hosts=("box.lan",)).answers_to(host) is ours


def test_a_preview_is_the_least_squares_fit():
    """Where colours are a linear function of the latents, the preview is exact: up to the rounding of 8 bits."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    latents, weights = random.uniform(-1, 1, (1, 4, 8, 8)), random.uniform(-20, 20, (4, 3))
    colours = np.round(latents[0].reshape(4, -1).T @ weights + 128).astype(np.uint8)
    preview, picture = Preview(), Image.fromarray(colours.reshape(8, 8, 3)).resize((64, 64), Image.Resampling.NEAREST)
    assert preview.show(latents, (64, 64)) is None
    preview.learn(latents, picture)
    shown = np.asarray(preview.show(latents, (8, 8)), int)
    assert abs(shown - colours.reshape(8, 8, 3)).max() <= 1  # 0.5 of rounding in, 0.5 out


@pytest.mark.parametrize("options, message", [
    (["--host", "0.0.0.0"], "lets other machines call"), (["--port", "99999"], "cannot listen"), (["--most-images", "0"], "--most-images"),
    (["--allow-size", "512x512"], "it has 16x16, 24x16"),
])  # fmt: skip
def test_bad_options_are_one_line(options, message, bundles, capsys, monkeypatch):
    monkeypatch.delenv("KANDINSKY_MINDIR_KEY", raising=False)
    bundle = bundles("narrow")
    capsys.readouterr()  # what an export has said
    assert cli.main(["serve", str(bundle), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_port_that_is_taken(bundles, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert cli.main(["serve", str(bundles("narrow")), "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(tmp_path):
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError(\"No module named 'starlette'\", name='starlette')")
    result = subprocess.run([sys.executable, "-m", "kandinsky_mindir.runner.cli", "serve", str(tmp_path)], capture_output=True, text=True,
                            env={**os.environ, "PYTHONPATH": str(tmp_path)}, timeout=60)
    assert result.returncode == 2 and "pip install 'kandinsky-mindir[serve]'" in result.stderr and result.stderr.count("\n") == 1


@pytest.fixture
def process(bundles, tmp_path):
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([sys.executable, "-m", "kandinsky_mindir.runner.cli", "serve", str(bundles("narrow")), "--port", "0",
                                    "--threads", "1"], stdout=subprocess.PIPE, stderr=log, text=True)
    process.url = process.stdout.readline().strip()
    process.log = tmp_path / "log"
    wait(lambda: ready(process.url))
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def ready(url):
    try:
        return urllib.request.urlopen(f"{url}/ready", timeout=10).status == 200
    except OSError:
        return False


def post(url, **body):
    request = urllib.request.Request(f"{url}/v1/images/generations", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def stream(url, **body):
    """The events of a streamed picture, as text."""
    request = urllib.request.Request(f"{url}/v1/images/generations", json.dumps({**body, "stream": True}).encode(),
                                     {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_sigterm_finishes_the_picture_in_hand(process):
    """Those that wait are told, streams too, and the process ends with status 0."""
    found, streams = [], []
    threads = [threading.Thread(target=lambda: found.append(post(process.url, prompt="a cat", steps=150))) for _ in range(3)]
    threads += [threading.Thread(target=lambda: streams.append(stream(process.url, prompt="a cat", steps=150))) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert process.wait(60) == 0
    statuses = sorted(status for status, _ in found)
    assert len(statuses) == 3 and statuses[0] == 200 and set(statuses) <= {200, 503}
    assert all(answer["error"]["code"] == "stopping" for status, answer in found if status == 503)
    assert len(streams) == 2 and all("image_generation.completed" in text or '"stopping"' in text for text in streams)
    assert all(json.loads(line)["time"] for line in process.log.read_text().splitlines())


def test_a_killed_model_is_loaded_again(bundles):
    """Whoever waits for a picture gets it, the same as ever."""
    with served(bundles("narrow")) as server, held(server) as (reached, go):
        found = []
        body = {"prompt": "a cat", "seed": 1, **STEPS}
        thread = threading.Thread(target=lambda: found.append(server.call("/v1/images/generations", body)))
        thread.start()
        assert reached.wait(30)
        kill_models()
        go.set()
        thread.join(60)
        (status, answer, _), = found
        assert status == 200, answer
        assert [line["event"] for line in server.lines if line["event"] != "request"] == ["again"]
        assert server.call("/v1/images/generations", body)[1]["data"][0]["b64_json"] == answer["data"][0]["b64_json"]


def test_ten_thousand_headers_are_not_read(bundles):
    """Not even in one piece: the loop has others to answer."""
    with served(bundles("narrow")) as server, socket.create_connection(server.host.split(":"), 10) as link:
        link.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 10_000 + b"\r\n")
        try:
            answer = link.recv(1000)
        except ConnectionResetError:
            answer = b""
        assert not answer or answer.startswith(b"HTTP/1.1 400 "), answer[:100]
        assert server.call("/health")[0] == 200


def test_models_that_are_killed_again_and_again(bundles):
    """Whoever waits is told, in words that say nothing of where files lie; the next one gets a picture."""
    with served(bundles("narrow")) as server:
        follow, body = server.service.worker._follow, {"prompt": "a cat", "seed": 1, **STEPS}

        def killing(job, *arguments):
            kill_models()
            follow(job, *arguments)

        server.service.worker._follow = killing
        status, answer, _ = server.call("/v1/images/generations", body)
        assert status == 500 and answer["error"]["code"] == "picture_failed" and str(bundles("narrow")) not in str(answer)
        server.service.worker._follow = follow
        assert server.call("/v1/images/generations", body)[0] == 200 and server.call("/ready")[0] == 200


def kill_models():
    models = [int(name) for name in os.listdir("/proc") if name.isdigit() and is_model_of_this_process(name)]
    assert models
    for model in models:
        os.kill(model, signal.SIGKILL)


def is_model_of_this_process(number):
    try:
        with open(f"/proc/{number}/stat") as file:
            name, rest = file.read().rpartition(")")[::2]
        return int(rest.split()[1]) == os.getpid() and "(bridge" in name
    except OSError:
        return False
