import asyncio
import gc
import threading
import weakref

import pytest

from genie_gym.errors import InvalidActionError
from genie_gym.serve.server import GameServer


@pytest.fixture
def serve(make_config):
    """Return a function that runs a test of a server, which it is given, and of its world."""

    def run(test, **changes):
        async def begin():
            server = GameServer(make_config(**changes))
            [world] = server.worlds.values()

            def open_game(seed):
                return server.open(world, start=0, image=None, fit="crop", seed=seed)

            try:
                return await asyncio.wait_for(test(server, open_game), 60)
            finally:
                await asyncio.wait_for(server.close(1.0), 10)

        return asyncio.run(begin())

    return run


def test_players_who_leave_take_all_of_their_games_with_them(serve):
    async def play(server, session, number):
        for _ in range(3):
            await server.step(session, number)

    async def come_and_go(server, open_game):
        sessions = [await open_game(number) for number in range(3)]
        await asyncio.gather(*(play(server, one, number) for number, one in enumerate(sessions)))
        games = [weakref.ref(session) for session in sessions]
        for id in [session.id for session in sessions]:
            await server.free(id)
        sessions.clear()
        await server.worker.call(gc.collect)
        return [game() for game in games]

    assert serve(come_and_go) == [None, None, None]


def test_a_step_whose_player_leaves_meanwhile_is_whole_and_others_play_on(serve):
    async def leave(server, open_game):
        one, other = await open_game(1), await open_game(2)
        is_held, go_on = threading.Event(), threading.Event()

        def hold():
            is_held.set()
            go_on.wait(30)

        holding = asyncio.create_task(server.worker.call(hold))
        await asyncio.to_thread(is_held.wait, 30)
        never_begun = asyncio.create_task(server.step(one, 0))
        asked = asyncio.create_task(server.worker.call(len, one.steps))
        await asyncio.sleep(0)
        never_begun.cancel(), asked.cancel()
        await asyncio.gather(never_begun, asked, return_exceptions=True)
        go_on.set()
        await holding
        return [(await server.step(game, 0)).index for game in (one, other)]

    assert serve(leave) == [1, 1]


def test_an_action_that_is_none_any_more_stops_its_own_game_alone(serve):
    async def change(server, open_game):
        one, other = await open_game(1), await open_game(2)
        await server.worker.call(one.change, {"action_mode": "latent"})
        changing = server.worker.call(one.change, {"action_mode": "ale"})
        late = server.worker.step(one, 7)
        return await asyncio.gather(changing, late, server.step(other, 0), return_exceptions=True)

    _, error, step = serve(change)
    assert isinstance(error, InvalidActionError) and "in [0, 6), got 7" in str(error)
    assert step.index == 1


def test_idle_games_expire_though_one_of_them_goes_meanwhile(serve):
    async def expire(server, open_game):
        ids = [(await open_game(number)).id for number in range(3)]
        free, freed = server.free, []

        async def free_slowly(id, **options):
            freed.append(id)
            if len(freed) == 1:
                server.registry.remove(ids[1])
            await free(id, **options)

        server.free = free_slowly
        expiring = asyncio.create_task(server.expire())
        while len(server.registry):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        assert not expiring.done()
        expiring.cancel()
        return [ids.index(id) for id in freed]

    assert serve(expire, idle_seconds=0.1) == [0, 2]
