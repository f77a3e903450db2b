"""django-redis as CACHES["default"] of database 1, and sessions kept in it."""
import sys

from django.conf import settings

settings.configure(
    CACHES={"default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{sys.argv[1]}/1",
        "OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient"},
    }},
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    SECRET_KEY="of a test",
)

import django

django.setup()

from django.contrib.sessions.backends.cache import SessionStore
from django.core.cache import cache
from django_redis import get_redis_connection

cache.set("k", {"a": [1, 2]}, timeout=300)
assert cache.get("k") == {"a": [1, 2]} and 200 < cache.ttl("k") <= 300
assert cache.add("k", 1) is False and cache.add("new", 1) is True
cache.set_many({"a": 1, "b": "two", "c": None}, timeout=300)
assert cache.get_many(["a", "b", "none"]) == {"a": 1, "b": "two"}
assert cache.incr("a", 5) == 6 and cache.decr("a") == 5
assert cache.touch("a", 600) and cache.ttl("a") > 300
assert cache.persist("a") and cache.ttl("a") is None and cache.expire("a", timeout=300)
assert cache.get_or_set("made", lambda: "here", 300) == "here" and cache.get("made") == "here"
assert cache.incr_version("k") == 2 and cache.get("k") is None and cache.get("k", version=2)
with cache.lock("only me", timeout=300):
    assert not cache.lock("only me", timeout=300).acquire(blocking=False)
assert cache.lock("only me", timeout=300).acquire(blocking=False)
cache.set_many({f"view:{i}": i for i in range(30)})
assert len(list(cache.iter_keys("view:*"))) == 30 and len(cache.keys("view:*")) == 30
assert cache.delete_pattern("view:*") == 30
cache.delete_many(["a", "b"])
assert not cache.has_key("a")

raw = get_redis_connection("default")
assert raw.connection_pool.connection_kwargs["db"] == 1
raw.execute_command("SELECT", 0)
assert raw.dbsize() == 0, "something is in database 0"
raw.execute_command("SELECT", 1)

s = SessionStore()
s["cart"] = ["book"]
s.save()
again = SessionStore(session_key=s.session_key)
assert again["cart"] == ["book"]
again.flush()
assert not SessionStore().exists(s.session_key)
cache.clear()
assert cache.keys("*") == []
print("ok")
