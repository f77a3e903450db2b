package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// copiesWriter writes keys of its own, and knows what may be read of them.
type copiesWriter struct {
	name    int
	acked   map[string]string
	pending map[string][]string // written since, without an answer
}

const copiesKeys = 300

func (w *copiesWriter) key(i int) string { return fmt.Sprintf("copies%d:%d", w.name, i%copiesKeys) }

// step writes a key, reads one and deletes one now and then. It returns what is wrong.
func (w *copiesWriter) step(c *redis.ClusterClient, i int) error {
	ctx := context.Background()
	key, value := w.key(i), fmt.Sprint(i)
	if i%7 == 0 {
		value = "" // none
		w.wrote(key, value, c.Del(ctx, key).Err())
	} else if i%2 == 0 {
		w.wrote(key, value, c.Set(ctx, key, value, time.Hour).Err())
	} else {
		pipe := c.TxPipeline()
		pipe.Del(ctx, key)
		pipe.Set(ctx, key, value, 0)
		_, err := pipe.Exec(ctx)
		w.pending[key] = append(w.pending[key], "")
		w.wrote(key, value, err)
	}
	_, err := w.read(c, w.key(i*31))
	return err
}

func (w *copiesWriter) wrote(key, value string, err error) {
	if err == nil {
		w.acked[key] = value
		delete(w.pending, key)
		return
	}
	w.pending[key] = append(w.pending[key], value)
}

func (w *copiesWriter) read(c *redis.ClusterClient, key string) (found bool, wrong error) {
	got, err := c.Get(context.Background(), key).Result()
	if err != nil {
		return false, nil
	}
	if got == w.acked[key] {
		return true, nil
	}
	for _, v := range w.pending[key] {
		if v == got {
			return true, nil
		}
	}
	return false, fmt.Errorf("%s is %q, was answered to be %q, and perhaps %q", key, got, w.acked[key], w.pending[key])
}

// copied waits until each slot has a complete copy.
func (g *group) copied() {
	eventually(g.t, "all slots have copies", func() error {
		n := 0.0
		for _, s := range g.running() {
			n += s.metric("mcached_resp_copies_slots")
		}
		if n != 16384 {
			return fmt.Errorf("%v have", n)
		}
		return nil
	})
}

// The keys of a member that is killed live on at another with --cluster.blob-copies=2,
// and none has a value that was written over. It comes back, another one is killed and
// comes back, and then the third is killed.
func TestClusterCopies(t *testing.T) {
	t.Parallel()
	g := startCluster(t, 3, "--cluster.blob-copies=2")
	g.copied()
	c := g.clusterClient()
	ctx := context.Background()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var steps atomic.Int64
	var writers []*copiesWriter
	for n := range 4 {
		w := &copiesWriter{name: n, acked: map[string]string{}, pending: map[string][]string{}}
		writers = append(writers, w)
		wg.Go(func() {
			for i := 1; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := w.step(c, i); err != nil {
					t.Error(err)
				}
				steps.Add(1)
			}
		})
	}
	const goOn = "writers go on"
	more(t, goOn, &steps, 4000)
	kill := func(at int) {
		_ = g.members[at].cmd.Process.Signal(syscall.SIGKILL)
		<-g.members[at].exited
	}
	kill(1)
	more(t, goOn, &steps, 50) // while others do not know
	g.wait("n0", "n2")
	more(t, goOn, &steps, 2000)
	g.start("n1")
	g.wait("n0", "n1", "n2")
	more(t, goOn, &steps, 2000)
	g.copied()
	more(t, goOn, &steps, 2000)
	close(stop)
	wg.Wait()

	there := func() (n int) {
		for _, w := range writers {
			for i := range copiesKeys {
				found, err := w.read(c, w.key(i))
				if err != nil {
					t.Error(err)
				}
				if found {
					n++
				}
			}
		}
		return n
	}
	served := func() {
		eventually(t, "all keys are served", func() error {
			for _, w := range writers {
				for i := range copiesKeys {
					if err := c.Exists(ctx, w.key(i)).Err(); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	// Who comes back has been sent its keys before it serves them.
	before := there()
	kill(2)
	g.wait("n0", "n1")
	g.start("n2")
	g.wait("n0", "n1", "n2")
	g.copied()
	served()
	if now := there(); now < before*95/100 {
		t.Errorf("%d keys, and %d after a member came back", before, now)
	}
	before = there()
	kill(0)
	g.wait("n1", "n2")
	served()
	after := there()
	kept, dropped := 0.0, 0.0
	for _, s := range g.running() {
		kept += s.metric(`mcached_resp_copies_inherited_slots_total{outcome="kept"}`)
		dropped += s.metric(`mcached_resp_copies_inherited_slots_total{outcome="dropped"}`)
	}
	t.Logf("%d of %d keys live on; slots kept %v, dropped %v", after, before, kept, dropped)
	if before < 600 || after < before*95/100 {
		t.Errorf("%d keys, and %d after a member was killed", before, after)
	}
	for _, s := range g.running() { // a scan of all is of each key once
		if keys, err := s.redis().Keys(ctx, "copies*").Result(); err != nil {
			t.Error(err)
		} else {
			for _, k := range keys {
				if strings.HasPrefix(k, "copies") {
					after--
				}
			}
		}
	}
	if after > 0 || after < -before/20 {
		t.Errorf("KEYS of all members has %d keys too few", after)
	}
}
