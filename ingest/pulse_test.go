package ingest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestPulse(t *testing.T) {
	var p pulse
	now := int64(1)
	if !p.runs(now) || p.beats(now) {
		t.Error("it stood still before the first beat")
	}
	now += int64(pulseMost)
	if !p.runs(now) || p.beats(now) || !p.runs(now) {
		t.Error("a beat that is just in time")
	}
	now += int64(pulseMost) + 1
	if p.runs(now) {
		t.Error("the stamp is too old, and it is not noticed before the next beat")
	}
	if !p.beats(now) || p.runs(now) || p.beats(now) || p.runs(now+1) {
		t.Error("the beat that was too late is forgotten by the next")
	}
	p.stopped.Store(false)
	if !p.runs(now + int64(pulseMost)) {
		t.Error("reassured, and does not run")
	}
}

// A node that stood still serves no key, in whatever way it is asked, until it is told
// what it missed; and all that it has if it missed nothing.
func TestPulseServesNothing(t *testing.T) {
	asked, answered := make(chan struct{}), make(chan struct{})
	c := newTrio(t, false, func(o *Options) {
		o.Cluster.Reassure = func(context.Context) { asked <- struct{}{}; <-answered }
	})
	c.give(0, 1, 2)
	s, r, ctx, key := c.servers[0], c.client(0), context.Background(), keyOf(0)
	waitFor(t, "it has a pulse", func() bool { return s.pulse.beat.Load() != 0 })
	refusals := []string{"CLUSTERDOWN", "EXECABORT", "non local key"}
	ways := map[string]func() error{
		"GET": func() error { return r.Get(ctx, key).Err() },
		"SET": func() error { return r.Set(ctx, key, "v", 0).Err() },
		"a pipeline": func() error {
			p := r.Pipeline()
			p.Set(ctx, key, "v", 0)
			p.Get(ctx, key)
			_, err := p.Exec(ctx)
			return err
		},
		"EXEC": func() error {
			p := r.TxPipeline()
			p.Get(ctx, key)
			_, err := p.Exec(ctx)
			return err
		},
		"EVAL": func() error { return r.Eval(ctx, "return redis.call('get', KEYS[1])", []string{key}).Err() },
		"EVAL of what it does not declare": func() error {
			return r.Eval(ctx, "return redis.call('get', '"+key+"')", nil).Err()
		},
	}
	if err := ways["SET"](); err != nil {
		t.Fatal(err)
	}
	for range 4 { // from the second on the connection's command is one to be gathered
		if err := ways["GET"](); err != nil {
			t.Fatal(err)
		}
	}
	s.pulse.beat.Store(s.nanos() - int64(pulseMost+time.Second))
	for name, do := range ways {
		if err := do(); err == nil || !slices.ContainsFunc(refusals, func(s string) bool { return strings.Contains(err.Error(), s) }) {
			t.Errorf("%s: %v", name, err)
		}
	}
	<-asked
	if err := ways["GET"](); err == nil {
		t.Error("it serves while it asks")
	}
	s.pulse.beat.Store(s.nanos() - int64(pulseMost+time.Second)) // once more, meanwhile
	waitFor(t, "it is noticed", func() bool { return s.nanos()-s.pulse.beat.Load() < int64(pulseMost) })
	answered <- struct{}{}
	<-asked
	if err := ways["GET"](); err == nil {
		t.Error("it serves though it stood still after it had asked")
	}
	answered <- struct{}{}
	waitFor(t, "it serves again", func() bool { return ways["GET"]() == nil })
	for name, do := range ways {
		if err := do(); err != nil && !errors.Is(err, redis.Nil) {
			t.Errorf("%s, in the end: %v", name, err)
		}
	}
	if v := r.Get(ctx, key).Val(); v != "v" {
		t.Errorf("it lost a key: %q", v)
	}
}
