"""Two replicas of `kandinsky-mindir serve` behind HAProxy with runner/container/haproxy.cfg, one of which is killed.

  python tests/programs/balancer.py BUNDLE [--callers 4] [--pictures 40] [--steps 3]

It needs haproxy and the extra [serve]. Callers ask for pictures in a loop, each of its own seed. Then:

- every picture that came through the balancer is the one that a replica makes of its seed when it is asked alone;
- both replicas made some, and a job that was accepted is found where it is polled, however often;
- after one replica is killed, only what it was making is lost (an error, status 502 or 503); later callers get pictures.

Prints: pictures, by replica, and what was lost.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

CONFIGURATION = Path(__file__).resolve().parents[2] / "runner" / "container" / "haproxy.cfg"
PORTS = (8000, 8001, 8002)  # of the balancer and the replicas, as the configuration has them
PATIENCE = 120  # seconds


def ask(port: int, path: str, body: dict | None = None) -> tuple[int, dict]:
    """(status, answer)."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, {}
    except OSError:
        return 0, {}


def picture(answer: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))))


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while ask(port, "/ready")[0] != 200:
        assert time.monotonic() < deadline, f"port {port} does not get ready"
        time.sleep(0.2)


def made_by(port: int) -> int:
    """Pictures that a replica has made, by its metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        text = response.read().decode()
    found = re.findall(r"^kandinsky_mindir_pictures_total ([\d.]+)$", text, re.MULTILINE)
    return int(sum(map(float, found)))


def run(bundle: Path, callers: int, pictures: int, steps: int, folder: Path, ports: tuple[int, int, int] = PORTS) -> None:
    """ports: in the place of PORTS. folder: for logs and the configuration."""
    text = re.sub(r"(?<=127\.0\.0\.1:)\d+", lambda match: str(ports[PORTS.index(int(match[0]))]), CONFIGURATION.read_text())
    (folder / CONFIGURATION.name).write_text(text)
    balancer, *replicas = ports
    serve = [sys.executable, "-m", "kandinsky_mindir.runner.cli", "serve", bundle, "--threads", "1", "--port"]
    processes = []
    try:
        for port in replicas:
            log = open(folder / f"{port}.log", "w")
            processes.append(subprocess.Popen([*map(str, serve), str(port)], stdout=log, stderr=log))
        for port in replicas:
            wait_until_ready(port)
        processes.append(subprocess.Popen(["haproxy", "-f", folder / CONFIGURATION.name, "-db"]))  # it takes both as ready now
        wait_until_ready(balancer)
        body = {"prompt": "a cat", "steps": steps, "n": 1}

        def one(seed: int) -> tuple[int, int, dict]:
            return seed, *ask(balancer, "/v1/images/generations", {**body, "seed": seed})

        with ThreadPoolExecutor(callers) as pool:
            answers = list(pool.map(one, range(pictures)))
        assert all(status == 200 for _, status, _ in answers), [status for _, status, _ in answers]
        for seed in range(0, pictures, 5):
            rights = [picture(ask(port, "/v1/images/generations", {**body, "seed": seed})[1]) for port in replicas]
            assert np.array_equal(rights[0], rights[1]) and np.array_equal(rights[0], picture(answers[seed][2])), seed
        made = [made_by(port) - len(range(0, pictures, 5)) for port in replicas]
        print(f"{pictures} pictures, each right for its seed; the replicas made {made[0]} and {made[1]}")
        assert min(made) > 0

        polled = 0
        for seed in range(4):
            status, job = ask(balancer, "/v1/jobs", {**body, "seed": seed})
            assert status == 202, status
            while job["status"] != "completed":
                status, job = ask(balancer, f"/v1/jobs/{job['id']}")
                assert status == 200, f"a job is lost: {status}"
                polled += 1
                time.sleep(0.02)
        print(f"4 jobs, found in each of {polled} polls")

        with ThreadPoolExecutor(callers) as pool:
            threading.Timer(0.3, processes[0].kill).start()
            answers = list(pool.map(one, range(pictures)))
        lost = [status for _, status, _ in answers if status != 200]
        assert set(lost) <= {0, 502, 503} and len(lost) <= callers + 2, lost
        with ThreadPoolExecutor(callers) as pool:
            later = [status for _, status, _ in pool.map(one, range(pictures))]
        assert later == [200] * pictures, f"what came later failed, too: {later}"
        print(f"one replica killed: {pictures - len(lost)} of {pictures} pictures came, {len(lost)} were lost ({lost})")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    for name, number in (("callers", 4), ("pictures", 40), ("steps", 3)):
        parser.add_argument(f"--{name}", type=int, default=number)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(args.bundle, args.callers, args.pictures, args.steps, Path(folder))


if __name__ == "__main__":
    main()
