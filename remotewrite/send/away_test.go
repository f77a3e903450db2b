package send

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mcached/mcache"
	"mcached/remotewrite"
)

// A receiver that is away for hours, then answers 503, then does not answer at
// all: what was acknowledged meanwhile is kept, writers are told when it is too
// much, the receiver is asked no more often than back-off says, and when it is
// back it has everything within seconds.
func TestForwarderReceiverAwayForHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := newReceiver(t, remotewrite.Options{Now: time.Now})
		up := newWriteBack(t, remotewrite.Options{Now: time.Now})
		const (
			here = iota
			away
			busy
			silent
		)
		var state atomic.Int32
		var requests [silent + 1]atomic.Int64
		client, err := NewClient(ClientOptions{URL: "http://down/", HTTP: &http.Client{Timeout: 30 * time.Second,
			Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				s := state.Load()
				requests[s].Add(1)
				switch s {
				case away:
					return nil, errors.New("connection refused")
				case busy:
					return &http.Response{StatusCode: 503, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
				case silent:
					<-r.Context().Done()
					return nil, r.Context().Err()
				}
				return direct{down}.RoundTrip(r)
			})}})
		if err != nil {
			t.Fatal(err)
		}
		const lanes, maxAge, maxBackoff = 2, time.Minute, 5 * time.Second
		f, err := NewForwarder(ForwarderOptions{Cache: up.Cache, Client: client, Lanes: lanes, MaxDirtyAge: maxAge, MaxBackoff: maxBackoff})
		if err != nil {
			t.Fatal(err)
		}
		const series, step = 40, 15 * time.Second
		up.Cache.SetMaxDirty(series * int64(5*time.Hour/step)) // fewer than there will be
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan struct{})
		go func() { _ = f.Run(ctx); close(ran) }()

		acked := map[string]map[int64]uint64{} // by the series' labels
		refused := 0
		scrape := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(step) {
				for i := range series {
					ls := named("x", "i", fmt.Sprint(i))
					s := mcache.Sample{T: time.Now().UnixMilli(), V: uint64(time.Now().Unix()) * uint64(i)}
					err := up.Cache.AppendSamples("default", ls, s)
					if errors.Is(err, mcache.ErrDirty) {
						refused++
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					if acked[labelText(ls)] == nil {
						acked[labelText(ls)] = map[int64]uint64{}
					}
					acked[labelText(ls)][s.T] = s.V
				}
				up.Cache.Maintain()
			}
		}
		// missing counts the acknowledged points that none of the caches has.
		missing := func(caches ...*mcache.Cache) (n, all int) {
			found := map[string]map[int64]uint64{}
			for _, c := range caches {
				ids, err := c.Select("default", nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, id := range ids {
					ls, _ := c.Labels(id, nil)
					key := labelText(ls)
					if found[key] == nil {
						found[key] = map[int64]uint64{}
					}
					var s mcache.Snapshot
					c.Snapshot(id, -mcache.MaxTime, mcache.MaxTime, &s)
					for it := s.Iterator(); it.Next(); {
						found[key][it.At().T] = it.At().V
					}
				}
			}
			for key, points := range acked {
				for at, v := range points {
					all++
					if got, ok := found[key][at]; !ok || got != v {
						n++
					}
				}
			}
			return n, all
		}
		scrape(30 * time.Minute)
		if st := f.Stats(); st.Retries != 0 || st.OldestAge > maxAge {
			t.Errorf("while the receiver is there: %+v", st)
		}
		for _, s := range []struct {
			state int32
			lasts time.Duration
		}{{away, 5 * time.Hour}, {busy, time.Hour}, {silent, time.Hour}} {
			state.Store(s.state)
			scrape(s.lasts)
			if n, all := missing(up.Cache, down.Cache); n > 0 {
				t.Errorf("state %d: %d of %d points are neither here nor there", s.state, n, all)
			}
			least, most := s.lasts/(maxBackoff+30*time.Second), lanes*(s.lasts/maxBackoff+10)
			if n := requests[s.state].Load(); n < int64(least) || n > int64(most) {
				t.Errorf("state %d: %d requests in %v, want %d to %d", s.state, n, s.lasts, least, most)
			}
		}
		if st := f.Stats(); refused == 0 || st.OldestAge < 6*time.Hour || up.Cache.Dirty().Refused == 0 {
			t.Errorf("after seven hours %d writes were refused; %+v", refused, st)
		}
		state.Store(here)
		time.Sleep(maxAge)
		if st := f.Stats(); st.DirtyPoints != 0 || st.Rejected != 0 {
			t.Errorf("a minute after it is back: %+v", st)
		}
		was := refused
		scrape(10 * time.Minute)
		cancel()
		<-ran
		drained(t, f)
		if n, all := missing(down.Cache); n > 0 || all < 50_000 || refused != was {
			t.Errorf("%d of %d points did not arrive; %d writes refused after it was back", n, all, refused-was)
		}
	})
}
