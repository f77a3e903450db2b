package main

import "testing"

// What there may be of connections fits into the files that the system permits, and
// is what was asked for where that fits.
func TestConnectionsFit(t *testing.T) {
	byDefault := connections{web: 1024, resp: 10_000}
	for _, c := range []struct {
		files     uint64
		listeners int
		resp      bool
		want      connections
	}{
		{1 << 20, 1, true, byDefault},
		{65536, 4, true, byDefault},
		{11_280, 1, true, byDefault},
		{11_279, 1, true, connections{1024, 9999}},
		{4096, 1, true, connections{960, 2880}},
		{4096, 1, false, byDefault},
		{1024, 1, true, connections{192, 576}},
		{1024, 2, true, connections{96, 576}},
		{1024, 1, false, connections{768, 10_000}},
		{64, 1, true, connections{8, 24}},
		{2, 3, true, connections{1, 1}},
		{0, 1, true, connections{1, 1}},
	} {
		if got := byDefault.fitting(c.files, c.listeners, c.resp); got != c.want {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}
