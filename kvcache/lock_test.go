package kvcache

import (
	"testing"

	"mcached/kvcache/lockcheck"
)

// TestLockNames holds that names end in Locked where a shard's lock is needed,
// and nowhere else.
func TestLockNames(t *testing.T) {
	const (
		held   = "lockAll has taken the locks"
		reads  = "it reads what a pointer leads to, which the lock guards"
		inWith = "its function literal runs in with, which holds the lock"
	)
	lockcheck.Test(t, lockcheck.Rule{
		Type: "shard", Mutex: "mu",
		Except: map[string]string{
			"NewCache":            "nobody else has the shards yet",
			"Cache.Delete":        inWith,
			"Cache.Idle":          inWith,
			"Cache.removeParts":   inWith,
			"Cache.forget":        inWith,
			"Cache.hold":          held,
			"Cache.GetMany":       held,
			"Cache.putRun":        held,
			"shard.firstLocked":   reads,
			"shard.expiredLocked": reads,
			"shard.abandonLocked": reads,
		},
	}, 20)
}
