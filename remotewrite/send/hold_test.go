package send

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mcached/mcache"
	"mcached/remotewrite"
)

// direct is a network without a distance: requests go to a handler in the same
// goroutine, so that a test may have a clock of its own.
type direct struct{ to http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	d.to.ServeHTTP(w, r)
	return w.Result(), nil
}

// directTo makes a Forwarder whose client speaks to a handler. It is for the
// bubble of synctest.
func (r receiver) directTo(to http.Handler, o ForwarderOptions) *Forwarder {
	r.T.Helper()
	var err error
	if o.Client, err = NewClient(ClientOptions{URL: "http://down/", HTTP: &http.Client{Transport: direct{to}}}); err != nil {
		r.T.Fatal(err)
	}
	o.Cache = r.Cache
	f, err := NewForwarder(o)
	if err != nil {
		r.T.Fatal(err)
	}
	return f
}

// While a receiver refuses what is of one bucket, the others go on, in the same
// lane and in time; what was refused arrives when it is taken again, in order.
func TestForwarderHoldsABucket(t *testing.T) {
	for _, code := range []int{429, 403} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				down := newReceiver(t, remotewrite.Options{TenancyHeader: "X-Scope-OrgID"})
				up := newWriteBack(t, remotewrite.Options{TenancyHeader: "X-Scope-OrgID"})
				const maxAge = 10 * time.Second
				var mu sync.Mutex
				refusing := true
				refused, taken := 0, 0
				f := up.directTo(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					if r.Header.Get("X-Scope-OrgID") == "b" {
						if refusing {
							refused++
							w.Header().Set("Retry-After", "2")
							http.Error(w, "too much of it", code)
							return
						}
						taken++
					}
					down.ServeHTTP(w, r)
				}), ForwarderOptions{Lanes: 1, MaxDirtyAge: maxAge, TenancyHeader: "X-Scope-OrgID", MaxPerRequest: 7})
				ctx, cancel := context.WithCancel(t.Context())
				ran := make(chan struct{})
				go func() { _ = f.Run(ctx); close(ran) }()
				const rounds = 120
				started := time.Now()
				at := now.UnixMilli() - rounds*1000
				write := func() {
					at += 1000
					for i := range 30 {
						for _, bucket := range []string{"a", "b", "c"} {
							if err := up.Cache.AppendSamples(bucket, named("x", "i", fmt.Sprint(i)), mcache.Sample{T: at, V: uint64(i)}); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
				for range rounds {
					write()
					time.Sleep(time.Second)
				}
				time.Sleep(maxAge)
				for _, bucket := range []string{"a", "c"} {
					if got, want := down.Contents(bucket), up.Contents(bucket); !slices.Equal(got, want) || len(got) != 30 {
						t.Errorf("bucket %s: %d series arrived of %d, or others, while b is refused", bucket, len(got), len(want))
					}
				}
				mu.Lock()
				// At most one request in two seconds, and one that was begun before; at least one in a round over the shards.
				most, least := int(time.Since(started)/(2*time.Second))+1, int(time.Since(started)/maxAge)
				if refused < least || refused > most || len(down.Contents("b")) != 0 || f.Stats().DirtyPoints < 30*rounds {
					t.Errorf("%d requests refused, want %d to %d; %d series arrived; %+v", refused, least, most, len(down.Contents("b")), f.Stats())
				}
				mu.Unlock()

				// A drain sends the others at once, and waits for the bucket.
				cancel()
				<-ran
				write()
				short, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if left := f.Drain(short); left.Points != 30*(rounds+1) {
					t.Errorf("%+v is left, want %d points", left, 30*(rounds+1))
				}
				if got, want := down.Contents("a"), up.Contents("a"); !slices.Equal(got, want) {
					t.Errorf("the drain did not send bucket a")
				}
				time.AfterFunc(20*time.Second, func() {
					mu.Lock()
					defer mu.Unlock()
					refusing = false
				})
				long, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				began := time.Now()
				if left := f.Drain(long); left != (Left{}) {
					t.Errorf("%+v is left", left)
				}
				if took := time.Since(began); took < 20*time.Second || took > 25*time.Second {
					t.Errorf("the drain took %v, want little more than the 20 s that the bucket was refused", took)
				}
				if got, want := down.Contents("b"), up.Contents("b"); !slices.Equal(got, want) || len(got) != 30 || taken == 0 {
					t.Errorf("bucket b: %d series arrived of %d, or others", len(got), len(want))
				}
				if st := f.Stats(); st.Rejected != 0 || st.Sent != 3*30*(rounds+1) || st.Retries != uint64(refused) {
					t.Errorf("%d points sent of %d, %d requests refused: %+v", st.Sent, 3*30*(rounds+1), refused, st)
				}
			})
		})
	}
}

// A drain does not leave what is of a bucket that was held only while the others were sent.
func TestForwarderDrainsWhatWasHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := newReceiver(t, remotewrite.Options{TenancyHeader: "X-Scope-OrgID"})
		up := newWriteBack(t, remotewrite.Options{TenancyHeader: "X-Scope-OrgID"})
		refused := false
		f := up.directTo(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if b := r.Header.Get("X-Scope-OrgID"); b == "b" && !refused {
				refused = true
				http.Error(w, "too much of it", http.StatusTooManyRequests)
				return
			} else if b == "c" {
				time.Sleep(time.Minute) // longer than b is held
			}
			down.ServeHTTP(w, r)
		}), ForwarderOptions{Lanes: 1, TenancyHeader: "X-Scope-OrgID"})
		for _, bucket := range []string{"b", "c"} {
			if err := up.Cache.AppendSamples(bucket, named("x"), sample(0, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if left := f.Drain(t.Context()); left != (Left{}) || !refused || len(down.Contents("b")) != 1 {
			t.Errorf("%+v is left, and %d series of b arrived", left, len(down.Contents("b")))
		}
	})
}
