"""Players at one server over real WebSockets: latency of a step, frames a second, memory.

    python benchmarks/serve.py --world pong --players 16 --seconds 20 [--minutes 10]

The server is a process of its own, as users start it; the players share another. Each asks for its
next step as soon as it has the last frame. One player and many are measured in the same run, turn
by turn, so that what else the machine does falls on both. With --minutes the crowd then plays on,
half of it leaving and coming back all the time, and the server's memory is printed every half
minute.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import numpy as np
from websockets.asyncio.client import connect

NUM_TURNS = 3
"""How often one player and the crowd take turns."""


class Crowd:
    """Players at a server.

    Args:
        address: of the server, http://HOST:PORT.
        world: name of what they play.
    """

    def __init__(self, address, world):
        self.address, self.world = address, world
        self.latencies = []
        self.num_steps = {}

    @asynccontextmanager
    async def player(self, number):
        """Give a function that takes one step and tells whether the game goes on."""
        id = await asyncio.to_thread(self._open, number)
        address = self.address.replace("http", "ws") + f"/sessions/{id}/play"
        async with connect(address) as socket:
            await socket.recv(), await socket.recv()

            async def step():
                begin = time.perf_counter()
                await socket.send(json.dumps({"type": "step", "action": number % 6}))
                frame = await socket.recv()
                if isinstance(frame, str):
                    return False
                self.latencies.append(time.perf_counter() - begin)
                self.num_steps[number] = self.num_steps.get(number, 0) + 1
                return True

            yield step

    async def come_and_go(self, number, seconds, stay):
        """Play for a time; leave and come back every `stay` seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            async with self.player(number) as step:
                leave = min(end, time.monotonic() + stay)
                while time.monotonic() < leave and await step():
                    pass

    def _open(self, number):
        body = f'--x\r\nContent-Disposition: form-data; name="world"\r\n\r\n{self.world}\r\n'
        body += f'--x\r\nContent-Disposition: form-data; name="seed"\r\n\r\n{number}\r\n--x--\r\n'
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        request = urllib.request.Request(f"{self.address}/sessions", body.encode(), kind)
        for _ in range(100):  # those who left may still hold their places
            try:
                return json.loads(urllib.request.urlopen(request).read())["id"]
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                time.sleep(0.05)
        raise RuntimeError("no place at the server")


def measure(address, world, num_players, seconds, pid):
    """Return a run's frames a second, the server's milliseconds of work a frame, and its crowd."""
    crowd = Crowd(address, world)

    async def play(number, are_here):
        async with crowd.player(number) as step:
            await are_here.wait()  # to open a game takes as long as several steps
            begin, busy = time.monotonic(), processor_seconds(pid)
            while time.monotonic() < begin + seconds and await step():
                pass
            return time.monotonic() - begin, processor_seconds(pid) - busy

    async def run():
        are_here = asyncio.Barrier(num_players)
        return await asyncio.gather(*(play(number, are_here) for number in range(num_players)))

    took, busy = np.max(asyncio.run(run()), axis=0)
    num_frames = sum(crowd.num_steps.values())
    return num_frames / took, 1000 * busy / num_frames, crowd


def watch_memory(address, world, num_players, minutes, pid):
    """Print the server's memory while a crowd plays, leaves and comes back."""
    crowd = Crowd(address, world)

    async def run():
        stays = [float("inf"), 5.0]
        players = [
            crowd.come_and_go(number, 60 * minutes, stays[number % 2])
            for number in range(num_players)
        ]
        playing = asyncio.gather(*players)
        begin = time.monotonic()
        while not playing.done():
            print(f"{time.monotonic() - begin:6.0f} s: {resident_mib(pid):7.1f} MiB", flush=True)
            await asyncio.wait([playing], timeout=30)
        playing.result()

    asyncio.run(run())


def processor_seconds(pid):
    """Return the time that a process has kept processors busy, from Linux."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid):
    """Return the memory of a process, from Linux."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def main():
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", default="pong")
    parser.add_argument("--players", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--minutes", type=float, default=0, help="of play watched for its memory")
    options = parser.parse_args()

    code = "import sys; from genie_gym.cli import main; sys.exit(main())"
    flags = ["--port=0", "--max-steps=1000000", "--requests-per-second=100000"]
    command = [sys.executable, "-c", code, "serve", "--world", options.world, *flags]
    server = subprocess.Popen(
        [*command, f"--max-sessions={options.players}"], stdout=subprocess.PIPE, text=True
    )
    try:
        address = server.stdout.readline().split()[-1].rstrip("/")
        with urllib.request.urlopen(f"{address}/worlds") as answer:
            world = json.loads(answer.read())[0]["name"]
        measure(address, world, 1, 2, server.pid)  # warms up
        alone, together = [], []
        for _ in range(NUM_TURNS):
            for runs, num_players in ((alone, 1), (together, options.players)):
                seconds = options.seconds / NUM_TURNS
                runs.append(measure(address, world, num_players, seconds, server.pid))
        for runs, num_players in ((alone, 1), (together, options.players)):
            latencies = [latency for run in runs for latency in run[2].latencies]
            p50, p95 = np.quantile(latencies, [0.5, 0.95]) * 1000
            slowest = min(run[2].num_steps.get(n, 0) for run in runs for n in range(num_players))
            print(
                f"{num_players} players: {median(run[0] for run in runs):.1f} frames/s, a step "
                f"takes {p50:.0f} ms, p95 {p95:.0f} ms, the slowest player took {slowest} steps; "
                f"{median(run[1] for run in runs):.2f} ms of processor time a frame"
            )
        ratio = median(many[0] / one[0] for one, many in zip(alone, together, strict=True))
        print(f"{ratio:.2f} times as many frames/s, median of {NUM_TURNS} turns")
        if options.minutes:
            watch_memory(address, world, options.players, options.minutes, server.pid)
    finally:
        server.terminate()
        print(f"the server ended with {server.wait(timeout=10)}")


if __name__ == "__main__":
    main()
