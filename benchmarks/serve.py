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
import re
import subprocess
import sys
import time
import urllib.request
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

    async def play(self, number, seconds, session_seconds=float("inf")):
        """Play for a time; with `session_seconds`, leave and come back that often."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            id = await asyncio.to_thread(self._open, number)
            address = self.address.replace("http", "ws") + f"/sessions/{id}/play"
            async with connect(address) as socket:
                await socket.recv(), await socket.recv()
                leave = min(end, time.monotonic() + session_seconds)
                while time.monotonic() < leave:
                    begin = time.perf_counter()
                    await socket.send(json.dumps({"type": "step", "action": number % 6}))
                    frame = await socket.recv()
                    if isinstance(frame, str):
                        break  # the game is over
                    self.latencies.append(time.perf_counter() - begin)
                    self.num_steps[number] = self.num_steps.get(number, 0) + 1

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


def measure(address, world, num_players, seconds):
    """Return frames a second of all, steps of the slowest, and the latencies."""
    crowd = Crowd(address, world)

    async def run():
        await asyncio.gather(*(crowd.play(number, seconds) for number in range(num_players)))

    begin = time.monotonic()
    asyncio.run(run())
    rate = sum(crowd.num_steps.values()) / (time.monotonic() - begin)
    slowest = min(crowd.num_steps.get(number, 0) for number in range(num_players))
    return rate, slowest, crowd.latencies


def watch_memory(address, world, num_players, minutes, pid):
    """Print the server's memory while a crowd plays, leaves and comes back."""
    crowd = Crowd(address, world)

    async def run():
        stays = [float("inf"), 5.0]
        players = [
            crowd.play(number, 60 * minutes, stays[number % 2]) for number in range(num_players)
        ]
        playing = asyncio.gather(*players)
        begin = time.monotonic()
        while not playing.done():
            print(f"{time.monotonic() - begin:6.0f} s: {resident_mib(pid):7.1f} MiB", flush=True)
            await asyncio.wait([playing], timeout=30)
        playing.result()

    asyncio.run(run())


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
        measure(address, world, 1, 2)  # warms up
        alone, together, latencies = [], [], []
        for _ in range(NUM_TURNS):
            alone.append(measure(address, world, 1, options.seconds / NUM_TURNS))
            together.append(measure(address, world, options.players, options.seconds / NUM_TURNS))
            latencies += together[-1][2]
        one, all_of_them = median(run[0] for run in alone), median(run[0] for run in together)
        p50, p95 = np.quantile(latencies, [0.5, 0.95]) * 1000
        print(f"1 player: {one:.1f} frames/s")
        print(
            f"{options.players} players: {all_of_them:.1f} frames/s, {all_of_them / one:.2f} times "
            f"as many; a step takes {p50:.0f} ms, p95 {p95:.0f} ms; the slowest of them took "
            f"{min(run[1] for run in together)} steps"
        )
        if options.minutes:
            watch_memory(address, world, options.players, options.minutes, server.pid)
    finally:
        server.terminate()
        print(f"the server ended with {server.wait(timeout=10)}")


if __name__ == "__main__":
    main()
