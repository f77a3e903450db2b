#!/usr/bin/env bash
# ccache with remote storage alone: what one machine compiled, the next finds,
# an object of 1 KB and one of 3 MB that does not compress to less.
set -eu
port=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
export CCACHE_REMOTE_STORAGE=redis://127.0.0.1:$port/1 CCACHE_NOHASHDIR=1
unset CCACHE_DISABLE CCACHE_READONLY CCACHE_RECACHE || true

echo 'int small(void) { return 42; }' >small.c
{
	echo 'const char large[] ='
	head -c 3000000 /dev/urandom | base64 -w 4000 | sed 's/.*/"&"/'
	echo ';'
} >large.c

build() { # on a machine whose own cache is empty
	export CCACHE_DIR=$dir/$1
	ccache gcc -c small.c -o "$1-small.o"
	ccache gcc -c large.c -o "$1-large.o"
	ccache --print-stats >"$1-stats"
}
is() { # that a counter of a build has a value
	grep -qP "^$2\t$3\$" "$1-stats" || {
		echo "$1: want $2 to be $3:" >&2
		grep -vP '\t0$' "$1-stats" >&2
		exit 1
	}
}
build first
is first cache_miss 2
is first remote_storage_error 0
build second
is second cache_miss 0
is second remote_storage_hit 2
is second remote_storage_error 0
cmp first-small.o second-small.o
cmp first-large.o second-large.o
echo ok
