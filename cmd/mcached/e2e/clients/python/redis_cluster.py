"""redis-py's RedisCluster writes and reads a cluster until it is ended, and says how it goes: see go/cluster.go."""
import sys
import time

from redis.cluster import RedisCluster
from redis.exceptions import RedisError

KEYS = 100
c = RedisCluster(host="127.0.0.1", port=int(sys.argv[1]), socket_timeout=60)
print("masters", len(c.get_primaries()), flush=True)
acked, maybe, served = [None] * KEYS, [set() for _ in range(KEYS)], 0


def did(f, *args):
    global served
    try:
        got = f(*args)
    except (RedisError, OSError) as e:
        print("error", int(time.time() * 1000), type(e).__name__, e, flush=True)
        time.sleep(0.02)
        return False, None
    served += 1
    if served % 50 == 0:
        print("served", served, flush=True)
    return True, got


def look(i):
    ok, v = did(c.get, f"python{i}")
    if ok and v is not None and v.decode() != acked[i] and v.decode() not in maybe[i]:
        print("wrong", f"python{i} is {v}, acknowledged was {acked[i]}", flush=True)


n = 0
while True:
    i = n % KEYS
    ok, _ = did(c.set, f"python{i}", str(n))
    if ok:
        acked[i] = str(n)
    else:
        maybe[i].add(str(n))
    look(i)
    look(n * 37 % KEYS)
    n += 1
    time.sleep(0.002)
