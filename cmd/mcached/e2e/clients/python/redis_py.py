"""redis-py with hiredis, and with its own parser."""
import sys
import threading

import redis
from redis.connection import Connection, ConnectionPool, HiredisParser, PythonParser
from redis.exceptions import LockNotOwnedError, WatchError

port = int(sys.argv[1])


def strings(r):
    assert r.ping()
    assert r.set("k", "v", ex=100) and r.get("k") == b"v" and 90 < r.ttl("k") <= 100
    assert r.set("k", "w", nx=True) is None
    assert r.set("k", "w", get=True, keepttl=True) == b"v"
    assert r.mset({"a": 1, "b": 2}) and r.mget("a", "none", "b") == [b"1", None, b"2"]
    big = bytes(range(256)) * 4096
    assert r.set("big", big) and r.get("big") == big
    r.mset({f"scan:{i}": i for i in range(300)})
    assert len(set(r.scan_iter("scan:*", count=50))) == 300
    assert r.delete("a", "b", "none") == 2
    assert r.info("server")["redis_version"] == "7.0.15"


def transactions(r):
    p = r.pipeline()  # a transaction, unless it is told otherwise
    assert p.set("n", 1).incr("n").get("n").execute() == [True, 2, b"2"]
    with r.pipeline(transaction=False) as p:
        assert p.incr("n").get("none").execute() == [3, None]
    with r.pipeline() as p:
        p.watch("n")
        r.incr("n")
        p.multi()
        p.set("n", 0)
        try:
            p.execute()
            raise AssertionError("what was watched has changed, and the transaction ran")
        except WatchError:
            pass

    def add(p):
        n = int(p.get("n"))
        p.multi()
        p.set("n", n + 10)
    assert r.transaction(add, "n") == [True] and r.get("n") == b"14"


def lock(r):
    with r.lock("lock", timeout=300):
        assert not r.lock("lock", timeout=300).acquire(blocking=False)
    mine = r.lock("lock", timeout=300)
    assert mine.acquire() and mine.locked() and mine.owned()
    assert mine.extend(300) and r.ttl("lock") > 500 and mine.reacquire() and r.ttl("lock") <= 300
    r.delete("lock")
    try:
        mine.release()
        raise AssertionError("a lock that was lost was released")
    except LockNotOwnedError:
        pass
    counts = []

    def count():
        with redis.Redis(port=port).lock("lock", timeout=300, sleep=0.01):
            n = int(r.get("counted") or 0)
            r.set("counted", n + 1)
            counts.append(n + 1)
    threads = [threading.Thread(target=count) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert counts == [1, 2, 3, 4], counts


def more(r):
    assert r.hset("h", mapping={"a": 1, "b": 2}) == 2 and r.hgetall("h") == {b"a": b"1", b"b": b"2"}
    assert r.sadd("s", "x", "y") == 2 and r.smembers("s") == {b"x", b"y"} and list(r.sscan_iter("s"))
    script = r.register_script("return {KEYS[1], redis.call('incrby', KEYS[1], ARGV[1])}")
    assert script(keys=["scripted"], args=[5]) == [b"scripted", 5]
    assert script(keys=["scripted"], args=[5]) == [b"scripted", 10]
    ear = r.pubsub()
    ear.subscribe("news")
    assert ear.get_message(timeout=60)["type"] == "subscribe"
    assert r.publish("news", "hello") == 1 and ear.get_message(timeout=60)["data"] == b"hello"
    ear.close()
    ts = r.ts()
    assert ts.create("temp", labels={"room": "a"}) and ts.add("temp", 1000, 1.5) == 1000
    assert ts.range("temp", "-", "+") == [(1000, 1.5)] and ts.queryindex(["room=a"]) == ["temp"]
    two = redis.Redis(port=port, db=2)
    assert two.get("k") is None and two.set("k", "of 2") and r.get("k") != b"of 2"
    assert r.flushall()


for parser in HiredisParser, PythonParser:
    pool = ConnectionPool(connection_class=Connection, port=port, parser_class=parser)
    client = redis.Redis(connection_pool=pool)
    assert type(client.connection_pool.get_connection("PING")._parser) is parser
    for part in strings, transactions, lock, more:
        part(client)
assert redis.connection.DefaultParser is HiredisParser
print("ok")
