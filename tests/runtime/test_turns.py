"""Turns are limited in number, and one that hangs keeps nobody from his."""

import asyncio

from waiting import LIMIT_S, until

from autostart.runtime.compose.turns import Turns


def test_so_many_have_a_turn_at_a_time():
    async def main():
        turns, inside, most, gate = Turns(2, limit_s=LIMIT_S), 0, 0, asyncio.Event()

        async def work():
            nonlocal inside, most
            async with turns.turn():
                inside += 1
                most = max(most, inside)
                await gate.wait()
                inside -= 1

        working = [asyncio.create_task(work()) for _ in range(6)]
        await until(lambda: inside == 2)
        gate.set()
        await asyncio.wait(working)
        return most

    assert asyncio.run(main()) == 2


def test_those_who_hang_keep_nobody_from_a_turn_and_give_none_back_twice():
    async def main():
        turns, inside, gate = Turns(2, limit_s=0.01), 0, asyncio.Event()

        async def hang():
            nonlocal inside
            async with turns.turn():
                inside += 1
                await gate.wait()

        async def quick():
            async with turns.turn():
                pass

        hanging = [asyncio.create_task(hang()) for _ in range(4)]
        await until(lambda: inside == 4)
        async with asyncio.timeout(LIMIT_S):
            await quick()
        gate.set()
        await asyncio.wait(hanging)
        return turns._free._value

    assert asyncio.run(main()) == 2
