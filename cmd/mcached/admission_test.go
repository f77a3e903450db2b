package main

import "testing"

func TestHeapLimitFollowsTheGroup(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, c := range []struct{ total, fixed, want int64 }{
		{0, 0, 256 * mib},                // unreadable
		{1 * gib, 0, 256 * mib},          // the least
		{8 * gib, 0, gib},                // an eighth
		{64 * gib, 0, 2 * gib},           // the most
		{gib, 64 * mib, 256 * mib},       // the rest has room for it
		{gib, 768 * mib, 128 * mib},      // half of the rest
		{256 * mib, 250 * mib, 32 << 20}, // never below what the process needs
		{64 * gib, 63 * gib, 512 * mib},
	} {
		if got := heapLimitFor(c.total, c.fixed); got != c.want {
			t.Errorf("of %d with %d fixed it is %d, want %d", c.total, c.fixed, got, c.want)
		}
	}
}
