import asyncio
import gc
import weakref

from genie_gym.serve.server import GameServer


def test_players_who_leave_take_all_of_their_games_with_them(make_config):
    async def play(server, number):
        [world] = server.worlds.values()
        session = await server.open(world, start=0, image=None, fit="crop", seed=number)
        for _ in range(3):
            await server.step(session, number)
        return weakref.ref(session), session.id

    async def come_and_go():
        server = GameServer(make_config())
        games = await asyncio.gather(*(play(server, number) for number in range(3)))
        assert all(game() is not None for game, _ in games)
        for _, id in games:
            await server.free(id)
        await server.worker.call(gc.collect)
        gc.collect()
        left = [game() for game, _ in games]
        await server.close(1.0)
        return left

    assert asyncio.run(come_and_go()) == [None, None, None]
