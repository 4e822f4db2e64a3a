"""Many callers on one picture server: is any picture wrong, lost or mixed up, and is the line honest?

    python tests/programs/load.py BUNDLE --minutes 5 --callers 50

Callers ask in a loop, three times as many as the server has room for: each for a seed of its own, and compares the picture
with what that seed gave when it was alone. They keep cookies, as clients of HTTP do, and with them their turn. Some vanish in
the middle, send slowly, send a gigabyte, or send 10,000 headers. It prints what came of them, how long /health took (asked
from a process of its own, which waits for nothing else), how long the line was, what memory the server took, and how many who
came back after the seconds of a 429 found room; the exit status is 1 if anything was wrong.
"""

import argparse
import contextlib
import hashlib
import http.client
import json
import multiprocessing
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field
from http.cookies import SimpleCookie

SEEDS = 20  # different pictures
MOST_HEALTH = 0.050  # seconds, 99 of 100
MOST_GROWTH = 1.15  # of the server's memory, from a third of the time to its end: 15 % is for the allocator's own holes
LEAST_ROOM = 0.9  # of those who come back when they were told to
GIGABYTE = 1 << 30
BODY = {"prompt": "a cat", "steps": 10, "prior_steps": 2, "size": "16x16"}


@dataclass
class Found:
    """What callers met."""

    counts: Counter = field(default_factory=Counter)
    health: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    longest: int = 0
    faults: list[str] = field(default_factory=list)


def ask(host, body, cookies=None, timeout=120):
    """(status, JSON, seconds of Retry-After or None). cookies: of this caller, in and out."""
    connection = http.client.HTTPConnection(host, timeout=timeout)
    cookies = SimpleCookie() if cookies is None else cookies
    try:
        sent = {"Cookie": "; ".join(f"{name}={one.value}" for name, one in cookies.items())} if cookies else {}
        connection.request("POST", "/v1/images/generations", json.dumps(body), {"Content-Type": "application/json", **sent})
        answer = connection.getresponse()
        cookies.load(answer.getheader("Set-Cookie", ""))
        later = answer.getheader("Retry-After")
        return answer.status, json.loads(answer.read()), later and int(later)
    finally:
        connection.close()


def digest(answer):
    (one,) = answer["data"]
    return hashlib.sha256(one["b64_json"].encode()).hexdigest(), one["seed"]


def caller(host, known, found, until, number):
    rows = random.Random(number)
    waited, cookies = False, SimpleCookie()
    while time.monotonic() < until:
        seed = rows.randrange(SEEDS)
        try:
            status, answer, later = ask(host, {**BODY, "seed": seed}, cookies)
        except Exception as error:
            found.faults.append(f"a caller lost its connection: {type(error).__name__} {error}")
            continue
        found.counts[status] += 1
        if waited:
            found.counts["came back to room" if status == 200 else "came back too early"] += 1
        waited = status == 429
        if status == 200 and digest(answer) != (known[seed], seed):
            found.faults.append(f"seed {seed} got another picture")
        elif status == 429:
            if not later or later < 1:
                found.faults.append("a 429 without the time to come back")
            found.told.append(later or 0)
            time.sleep(min(later or 1, max(until - time.monotonic(), 0)))
        elif status != 200:
            found.faults.append(f"status {status}: {answer}")


def vanish(host):
    with socket.create_connection(address(host), 10) as link:
        body = json.dumps({**BODY, "steps": 100}).encode()
        link.sendall(head(host, len(body)) + body)
        time.sleep(0.05)


def send_slowly(host):
    with socket.create_connection(address(host), 10) as link:
        for byte in head(host, 50)[:40]:
            link.sendall(bytes([byte]))
            time.sleep(0.02)


def send_much(host):
    with socket.create_connection(address(host), 10) as link, contextlib.suppress(OSError):
        link.sendall(head(host, GIGABYTE))
        for _ in range(GIGABYTE >> 20):
            link.sendall(b" " * (1 << 20))


def send_headers(host):
    with socket.create_connection(address(host), 10) as link, contextlib.suppress(OSError):
        lines = b"".join(b"X-%d: y\r\n" % number for number in range(10_000))
        link.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\n".encode() + lines + b"\r\n")
        link.settimeout(10)
        link.recv(1000)


def address(host):
    name, port = host.split(":")
    return name, int(port)


def head(host, length):
    return (f"POST /v1/images/generations HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {length}\r\n\r\n").encode()


def disturb(host, found, until):
    for number in range(1 << 30):
        if time.monotonic() >= until:
            return
        with contextlib.suppress(OSError):
            (vanish, send_slowly, send_much, send_headers)[number % 4](host)
            found.counts["disturbed"] += 1
        time.sleep(0.2)


def watch(host, seconds, pipe):
    """/health, by itself, ten times a second; the line and the memory, once a second: a `Found`, into the pipe."""
    found, until = Found(), time.monotonic() + seconds
    for number in range(1 << 30):
        if time.monotonic() >= until:
            break
        began = time.monotonic()
        get(host, "/health")
        found.health.append(time.monotonic() - began)
        if number % 10 == 0:
            text = get(host, "/metrics")
            values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
            found.longest = max(found.longest, int(float(values["kandinsky_mindir_queue_length"])))
            found.memory.append(float(values["process_resident_memory_bytes"]))
        time.sleep(0.1)
    pipe.send(found)


def get(host, path):
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def load(host, seconds, callers, most_waiting):
    """What callers met; `faults` is empty if all was right."""
    found, known = Found(), {}
    for seed in range(SEEDS):
        status, answer, _ = ask(host, {**BODY, "seed": seed})
        assert status == 200, answer
        known[seed] = digest(answer)[0]
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    watcher = spawn.Process(target=watch, args=(host, seconds, there))
    watcher.start()
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=caller, args=(host, known, found, until, number)) for number in range(callers)]
    threads += [threading.Thread(target=disturb, args=(host, found, until))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if here.poll(60):
        watched = here.recv()
        found.health, found.memory, found.longest = watched.health, watched.memory, watched.longest
    else:
        found.faults.append("the server did not answer the one who watched")
    watcher.join(10)
    if found.longest > most_waiting:
        found.faults.append(f"{found.longest} waited, {most_waiting} may")
    return found


def report(found, seconds):
    """What it prints, and whether all was right."""
    health = sorted(found.health)
    slowest = health[min(int(len(health) * 0.99), len(health) - 1)]
    early = found.memory[len(found.memory) // 3]
    room, none = found.counts["came back to room"], found.counts["came back too early"]
    lines = [
        f"{found.counts[200]} pictures in {seconds:g} s, {found.counts[429]} times no room, {found.counts['disturbed']} disturbances",
        f"{room} came back to room, {none} to none; they were told {sum(found.told) / max(len(found.told), 1):.1f} s to wait in the mean",
        f"/health: {slowest * 1000:.1f} ms at 99 of 100 of {len(health)}, {max(health) * 1000:.1f} ms at most",
        f"the line: {found.longest} at most; memory: {early / 1e6:.0f} MB, then {max(found.memory) / 1e6:.0f} MB at most",
    ]
    if max(found.memory) > MOST_GROWTH * early:
        found.faults.append("the memory grows")
    if slowest > MOST_HEALTH:
        found.faults.append("/health is slow")
    if room < LEAST_ROOM * (room + none):
        found.faults.append("who came back when it was told to found no room")
    return "\n".join([*lines, *(f"WRONG: {fault}" for fault in found.faults[:10])]), not found.faults


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--callers", type=int, default=50)
    args = parser.parse_args()
    command = [sys.executable, "-m", "kandinsky_mindir.runner.cli", "serve", args.bundle, "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            host = urllib.parse.urlsplit(server.stdout.readline().strip()).netloc
            while '"ready"' not in get(host, "/ready"):
                time.sleep(0.2)
            text, right = report(load(host, 60 * args.minutes, args.callers, 16), 60 * args.minutes)
        finally:
            server.terminate()
    print(text)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
