"""Celery's results: the queue is its in-memory broker, what tasks return is kept here."""
import sys

from celery import Celery, group, states
from celery.contrib.testing.worker import start_worker

app = Celery("shop", broker="memory://", backend=f"redis://127.0.0.1:{sys.argv[1]}/2")


@app.task
def add(x, y):
    return x + y


@app.task
def fail():
    raise KeyError("on purpose")


with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=60):
    r = add.delay(2, 3)
    assert r.get(timeout=120) == 5 and r.state == states.SUCCESS
    assert 3600 < app.backend.client.ttl("celery-task-meta-" + r.id) <= 86400
    g = group(add.s(i, i) for i in range(5)).apply_async()
    assert g.get(timeout=120) == [0, 2, 4, 6, 8]
    g.save()
    assert app.GroupResult.restore(g.id).get(timeout=120) == [0, 2, 4, 6, 8]
    failed = fail.delay()
    try:
        failed.get(timeout=120)
        raise AssertionError("a failed task gave a result")
    except KeyError:
        pass
    assert failed.state == states.FAILURE and "on purpose" in failed.traceback
    r.forget()
    assert app.AsyncResult(r.id).state == states.PENDING
print("ok")
