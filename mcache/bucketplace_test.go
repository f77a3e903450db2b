package mcache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"
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

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// A bucket that is removed after Load has found it, and the place of which is another's
// by the time its series are made, gets none: they would be in the other.
func TestBucketRemovedWhileLoaded(t *testing.T) {
	from := newTestCache(t, Options{Shards: 1})
	const series = 5
	for i := range series {
		if err := from.AppendSamples("removed", name(fmt.Sprint("a", i)), Sample{T: 1, V: 1}); err != nil {
			t.Fatal(err)
		}
	}
	var file bytes.Buffer
	if _, err := from.Save(&file, 1, nil); err != nil {
		t.Fatal(err)
	}
	c := newTestCache(t, Options{Shards: 1})
	await := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !is(); runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatal("not within a minute: " + what)
			}
		}
	}
	s := c.shards[0]
	inSeries := file.Len() - frameHeader - saveEndBytes - 1 // the last byte of their frame
	in := io.MultiReader(io.LimitReader(&file, int64(inSeries)), readerFunc(func(b []byte) (int, error) {
		if file.Len() == frameHeader+saveEndBytes+1 {
			s.mu.Lock() // what else takes it is done
		}
		return file.Read(b)
	}))
	var hands sync.WaitGroup
	var loaded Loaded
	var err error
	hands.Go(func() { loaded, err = c.Load(in, LoadOptions{}) })
	func() {
		await("the series know their bucket, and wait for the shard", func() bool { return c.lives.Load() == series })
		defer s.mu.Unlock()
		was := c.findBucket("removed")
		hands.Go(func() { c.RemoveBucket("removed") })
		await("the bucket is removed", func() bool { return c.findBucket("removed") == nil })
		other, err := c.openBucket("other", widthHPTS)
		if err != nil {
			t.Fatal(err)
		}
		if other.id != was.id {
			t.Fatalf("the other bucket is in place %d, not %d: no test", other.id, was.id)
		}
	}()
	hands.Wait()
	if !errors.Is(err, ErrBuckets) || loaded.Series != 0 || loaded.Refused != series {
		t.Errorf("%+v, %v", loaded, err)
	}
	if n := c.SeriesOf("other"); n != 0 {
		t.Errorf("the other bucket has %d series", n)
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
