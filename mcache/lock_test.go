package mcache

import (
	"testing"

	"mcached/kvcache/lockcheck"
)

// TestLockNames holds that names end in Locked where a shard's lock is needed,
// and nowhere else.
func TestLockNames(t *testing.T) {
	const inTexts = "its function literal runs in texts, which holds the lock"
	lockcheck.Test(t, lockcheck.Rule{
		Type: "shard", Mutex: "mu", Parts: []string{"roster", "ledger", "counts", "scratch"},
		Except: map[string]string{
			"newShard":            "nobody else has the shard yet",
			"Cache.LabelNames":    inTexts,
			"Cache.LabelNamesIn":  inTexts,
			"Cache.LabelValues":   inTexts,
			"Cache.LabelValuesIn": inTexts,
		},
	}, 100)
}
