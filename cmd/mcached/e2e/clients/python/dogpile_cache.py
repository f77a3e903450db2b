"""dogpile.cache with its distributed lock: of many who ask at once, one makes the value."""
import sys
import threading

from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE

region = make_region(key_mangler=lambda k: "dogpile:" + k).configure(
    "dogpile.cache.redis",
    expiration_time=3600,
    arguments={
        "host": "127.0.0.1", "port": int(sys.argv[1]), "db": 0,
        "redis_expiration_time": 7200, "distributed_lock": True, "thread_local_lock": False,
    },
)
made = []


@region.cache_on_arguments()
def load(user):
    made.append(user)
    return {"user": user}


answers = []
threads = [threading.Thread(target=lambda: answers.append(load(7))) for _ in range(5)]
for t in threads:
    t.start()
for t in threads:
    t.join()
assert answers == [{"user": 7}] * 5 and made == [7], (answers, made)
load.invalidate(7)
assert load(7) == {"user": 7} and made == [7, 7]

region.set_multi({"a": 1, "b": 2})
assert region.get_multi(["a", "none", "b"]) == [1, NO_VALUE, 2]
assert region.get_or_create_multi(["a", "c"], lambda *keys: [k.upper() for k in keys]) == [1, "C"]
region.delete_multi(["a", "b"])
assert region.get("a") is NO_VALUE
client = region.backend.reader_client if hasattr(region.backend, "reader_client") else region.backend.client
assert 7000 < client.ttl("dogpile:c") <= 7200
print("ok")
