package mcache

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// A full table takes new buckets in the places of those that hold nothing, and
// refuses the others; what is to be kept is there from the start.
func TestBucketsWithoutSeriesMakeWay(t *testing.T) {
	c := newTestCache(t, Options{MaxBuckets: 4, KeepBuckets: []string{"default"}})
	if got := c.Buckets(); len(got) != 1 || got[0] != "default" {
		t.Fatalf("there are %q", got)
	}
	write := func(bucket string) error {
		return c.Insert(bucket, []byte("k"), 0, make([]byte, 8))
	}
	for _, b := range []string{"a", "b", "c"} {
		if err := write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := write("d"); !errors.Is(err, ErrBuckets) {
		t.Fatalf("a fifth bucket: %v", err)
	}
	if _, err := c.Take("b", []byte("k")); err != nil {
		t.Fatal(err)
	}
	if err := write("d"); err != nil {
		t.Errorf("in the place of one that is empty: %v", err)
	}
	if err := write("b"); !errors.Is(err, ErrBuckets) {
		t.Errorf("the one that made way has a place: %v", err)
	}
	if err := write("default"); err != nil {
		t.Errorf("the default bucket: %v", err)
	}
	for _, b := range []string{"a", "c", "d", "default"} {
		if runs, err := c.Get(b, []byte("k")); len(runs) != 1 || err != nil {
			t.Errorf("%s holds %v, %v", b, runs, err)
		}
	}
	checkCache(t, c)
}

// Many hands fight for few places: what was written is found in its own bucket or
// was refused, and never in another's. Each goes on until it had a place.
func TestBucketPlacesModel(t *testing.T) {
	c := newTestCache(t, Options{MaxBuckets: 3, KeepBuckets: []string{"default"}})
	hold := func(bucket string) error { return c.Insert(bucket, []byte("held"), 0, make([]byte, 8)) }
	if hold("x") != nil || hold("y") != nil || !errors.Is(hold("z"), ErrBuckets) {
		t.Error("beside the default bucket there are not two places")
	}
	for _, b := range []string{"x", "y"} {
		if _, err := c.Take(b, []byte("held")); err != nil {
			t.Error(err)
		}
	}
	var hands sync.WaitGroup
	for hand := range 8 {
		hands.Go(func() {
			bucket := fmt.Sprint("b", hand)
			for i, wrote := 0, false; i < 500 || !wrote; i++ {
				key := []byte(fmt.Sprint("k", hand))
				err := c.Insert(bucket, key, int64(i), make([]byte, 8))
				switch {
				case errors.Is(err, ErrBuckets):
					runtime.Gosched() // to those who have the places
					continue          // whether any two meet is up to the machine
				case err != nil:
					t.Error(err)
					return
				}
				wrote = true
				if runs, err := c.Take(bucket, key); len(runs) != 1 || runs[0].Offset != int64(i) || err != nil {
					t.Errorf("%s has %v, %v", bucket, runs, err)
				}
			}
		})
	}
	hands.Wait()
	if n := c.SeriesOf("default"); n != 0 {
		t.Errorf("%d series in a bucket that nobody wrote to", n)
	}
	checkCache(t, c)
}
