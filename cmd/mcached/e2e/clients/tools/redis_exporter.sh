#!/usr/bin/env bash
# Prometheus' exporter of Redis: keys of each database, and commands, as they are.
set -eu
port=$1
cli() { redis-cli -p "$port" "$@" >/dev/null; }
for i in 1 2 3 4 5; do cli set "k$i" v ex 3600; done
for i in 6 7; do cli set "k$i" v; done
cli -n 1 hset h a 1
for i in 1 2 3; do cli get "k$i"; done
cli get none
redis-cli -p "$port" incr h2 >/dev/null
redis-cli -p "$port" lpush l x >/dev/null || true # which is unknown

dir=$(mktemp -d)
exporter=
trap 'kill $exporter 2>/dev/null || true; rm -rf "$dir"' EXIT
for try in 1 2 3 4 5 6 7 8 9; do # until it finds a port that is free
	at=127.0.0.1:$((20000 + RANDOM % 10000))
	prometheus-redis-exporter -redis.addr "redis://127.0.0.1:$port" -check-keys 'db0=k*' -include-system-metrics \
		-web.listen-address "$at" 2>"$dir/log" &
	exporter=$!
	while kill -0 $exporter 2>/dev/null && ! curl -sf "http://$at/health" >/dev/null; do sleep 0.05; done
	kill -0 $exporter 2>/dev/null && break
done
curl -sf "http://$at/metrics" >"$dir/metrics"
is() { # that a metric has a value
	grep -qxF -- "$1 $2" "$dir/metrics" || {
		echo "want $1 $2, got" >&2
		grep -F -- "${1%%\{*}" "$dir/metrics" >&2 || echo nothing >&2
		cat "$dir/log" >&2
		exit 1
	}
}
is redis_up 1
is 'redis_db_keys{db="db0"}' 8
is 'redis_db_keys_expiring{db="db0"}' 5
is 'redis_db_keys{db="db1"}' 1
is 'redis_db_keys{db="db2"}' 0
is 'redis_commands_total{cmd="set"}' 7
is 'redis_commands_total{cmd="get"}' 4
is redis_keyspace_hits_total 3
is redis_keyspace_misses_total 1
echo ok
