package main

import (
	"context"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

func TestGrowthPercent(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{
		{0, 250},
		{1 << 20, 250},
		{4 << 20, 150},
		{6 << 20, 66},
		{8 << 20, 50},
		{10 << 20, 50},
		{1 << 40, 50},
	} {
		if got := growthPercent(c.live); got != c.want {
			t.Errorf("of %d bytes it is %d %%, want %d", c.live, got, c.want)
		}
	}
}

// TestCollectionsArePaced: GOGC follows what is alive.
func TestCollectionsArePaced(t *testing.T) {
	paceCollections()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	now := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/heap/live:bytes"}}
	for _, held := range []int{64 << 20, 1 << 20} {
		hold := make([]byte, held)
		for {
			runtime.GC()
			metrics.Read(now)
			got, want := int(now[0].Value.Uint64()), growthPercent(now[1].Value.Uint64())
			if got >= want-want/3 && got <= want+want/3 {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("with %d bytes alive it is %d %%, want %d", now[1].Value.Uint64(), got, want)
			}
			runtime.Gosched()
		}
		runtime.KeepAlive(hold)
	}
}
