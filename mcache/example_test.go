package mcache_test

import (
	"encoding/binary"
	"fmt"
	"log"
	"math"

	"mcached/kvcache"
	"mcached/mcache"
)

// newCache is a cache in 64 MiB of memory of its own.
func newCache(o mcache.Options) *mcache.Cache {
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 64 << 20})
	if err != nil {
		log.Fatal(err)
	}
	o.Memory = m
	c, err := mcache.New(o)
	if err != nil {
		log.Fatal(err)
	}
	return c
}

// values are 64-bit values as the raw API takes them.
func values(vs ...uint64) (b []byte) {
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func print(runs []mcache.Run) {
	for _, r := range runs {
		fmt.Print(r.Offset, ":")
		for i := 0; i < len(r.Values); i += 8 {
			fmt.Print(" ", binary.LittleEndian.Uint64(r.Values[i:]))
		}
		fmt.Println()
	}
}

func ExampleCache_Insert() {
	c := newCache(mcache.Options{})
	defer c.Close()
	key := []byte("cpu")
	c.Insert("host1", key, 10, values(1, 2, 3))
	c.Insert("host1", key, 15, values(6, 7))
	runs, _ := c.Get("host1", key)
	print(runs)
	// The gap fills, and the two runs are one.
	c.Insert("host1", key, 13, values(4, 5))
	runs, _ = c.Get("host1", key)
	print(runs)
	// Output:
	// 10: 1 2 3
	// 15: 6 7
	// 10: 1 2 3 4 5 6 7
}

func ExampleCache_InsertHPTS() {
	c := newCache(mcache.Options{})
	defer c.Close()
	c.InsertHPTS("events", []byte("door"), values(1003, 1, 1001, 0)) // pairs of time and value, in any order
	runs, _ := c.Get("events", []byte("door"))
	print(runs)
	fmt.Println(c.Insert("events", []byte("door"), 0, values(1)))
	// Output:
	// 1001: 1001 0 1003 1
	// mcache: bucket holds data of another width: "events" holds points of 16 bytes, got 8
}

func ExampleCache_Range() {
	c := newCache(mcache.Options{})
	defer c.Close()
	c.Insert("host1", []byte("cpu"), 0, values(0, 1, 2, 3, 4, 5))
	runs, _ := c.Range("host1", []byte("cpu"), 2, 4)
	print(runs)
	// Output:
	// 2: 2 3 4
}

func ExampleCache_Take() {
	c := newCache(mcache.Options{})
	defer c.Close()
	c.Insert("host1", []byte("cpu"), 0, values(1))
	runs, _ := c.Take("host1", []byte("cpu"))
	print(runs)
	fmt.Println(c.IsEmpty("host1"))
	// Output:
	// 0: 1
	// true
}

func ExampleCache_Pop() {
	c := newCache(mcache.Options{})
	defer c.Close()
	c.Insert("host1", []byte("old"), 0, values(1))
	c.Age("host1")
	c.Insert("host1", []byte("new"), 0, values(2))
	bucket, key, runs, _ := c.Pop() // the coldest generation first
	fmt.Println(bucket, string(key))
	print(runs)
	// Output:
	// host1 old
	// 0: 1
}

func ExampleCache_Append() {
	c := newCache(mcache.Options{})
	defer c.Close()
	labels := []mcache.Label{{Name: "__name__", Value: "up"}, {Name: "job", Value: "node"}}
	var b mcache.Batch
	for _, t := range []int64{15000, 30000} {
		b.Reset("default")
		b.Series(c.Fingerprint(labels))
		b.Sample(t, math.Float64bits(1))
		n, _ := c.Append(&b)
		for _, i := range b.Missing() { // the first time only: labels are needed once
			m, _ := c.AppendNew(&b, i, labels)
			n += m
		}
		fmt.Println(n, "written,", len(b.Missing()), "new")
	}
	// Output:
	// 1 written, 1 new
	// 1 written, 0 new
}

func ExampleCache_Select() {
	c := newCache(mcache.Options{})
	defer c.Close()
	for _, job := range []string{"node", "db", "web"} {
		c.AppendSamples("default", []mcache.Label{{Name: "__name__", Value: "up"}, {Name: "job", Value: job}},
			mcache.Sample{T: 15000, V: math.Float64bits(1)}, mcache.Sample{T: 30000, V: math.Float64bits(0)})
	}
	m, _ := mcache.NewMatcher(mcache.MatchRegexp, "job", "node|mail")
	ids, _ := c.Select("default", []mcache.Matcher{m}, nil)
	for _, id := range ids {
		labels, _ := c.Labels(id, nil)
		fmt.Println(labels)
		var s mcache.Snapshot
		if c.Snapshot(id, 0, 60000, &s) {
			for it := s.Iterator(); it.Next(); {
				fmt.Println(it.At().T, math.Float64frombits(it.At().V))
			}
		}
	}
	// Output:
	// [{__name__ up} {job node}]
	// 15000 1
	// 30000 0
}

func ExampleCache_Stats() {
	evicted := 0
	c := newCache(mcache.Options{MaxBytes: 4096, Evicted: func(o mcache.Evicted) { evicted += len(o.Samples) }})
	defer c.Close()
	for i := range 100 {
		c.Insert("host1", fmt.Append(nil, "key", i), 0, values(1, 2))
	}
	st := c.Stats()
	fmt.Println(st.Inserted == st.Points+st.Evicted, st.Evicted == uint64(evicted), st.AllocatedBytes <= st.MaxBytes)
	fmt.Println(c.RemoveBucket("host1"), c.Stats().Points, c.Buckets())
	// Output:
	// true true true
	// true 0 []
}
