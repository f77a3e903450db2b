"""redis-py's asyncio side: a lock, a transaction, many tasks over one pool."""
import asyncio
import sys

import redis.asyncio as redis


async def main(port):
    r = redis.from_url(f"redis://127.0.0.1:{port}/3", decode_responses=True)
    async with r.pipeline(transaction=True) as p:
        assert await p.set("n", 1).incr("n").execute() == [True, 2]

    async def count():
        async with r.lock("lock", timeout=300, sleep=0.01):
            n = int(await r.get("counted") or 0)
            await r.set("counted", n + 1)
    await asyncio.gather(*(count() for _ in range(5)))
    assert await r.get("counted") == "5"
    assert sum(await asyncio.gather(*(r.incr("many") for _ in range(50)))) == 1275
    await r.close()


asyncio.run(main(int(sys.argv[1])))
print("ok")
