package route

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outbox{}
		r := &Router{all: map[string]*outbox{"slow": o, "quick": {}}}
		o.waiting = []*frame{{since: time.Now()}, {since: time.Now().Add(time.Second)}}
		time.Sleep(3 * time.Second)
		for node, want := range map[string]time.Duration{"slow": 3 * time.Second, "quick": 0, "unknown": 0} {
			if got := r.Lag(node); got != want {
				t.Errorf("%s lags %v, want %v", node, got, want)
			}
		}
	})
}
