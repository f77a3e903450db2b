package mcache

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// literal is the ancestor's words as code: three tables of keys; a write moves
// its key to the first; ageing merges the second into the third and moves the
// first to the second.
type literal struct{ gen [3]map[string]bool }

func (l *literal) write(key string) {
	for g := range l.gen {
		delete(l.gen[g], key)
	}
	l.gen[0][key] = true
}

func (l *literal) age() {
	for key := range l.gen[1] {
		l.gen[2][key] = true
	}
	l.gen[1], l.gen[0] = l.gen[0], map[string]bool{}
}

// evictable are the keys of the coldest generation that has any.
func (l *literal) evictable() map[string]bool {
	for g := 2; g >= 0; g-- {
		if len(l.gen[g]) > 0 {
			return l.gen[g]
		}
	}
	return nil
}

// TestGenerationsOracle holds ageing by epoch to the literal description: each
// key that eviction takes is in the literal model's coldest generation, and no
// key there was of a larger size class.
func TestGenerationsOracle(t *testing.T) {
	t.Parallel()
	seeds := uint64(8)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(seed, 1))
		model := literal{[3]map[string]bool{{}, {}, {}}}
		var c *Cache
		classes := map[string]uint8{}
		evicted, turned, byGen := 0, 0, [3]int{}
		c = newTestCache(t, Options{Shards: 1, MaxBytes: 60 << 10, AgeCycle: 1 << 40, Evicted: func(o Evicted) {
			key := string(o.Key)
			cold := model.evictable()
			if !cold[key] {
				t.Fatalf("seed %d: %s was evicted, which is not of the coldest generation", seed, key)
			}
			for other := range cold {
				if classes[other] > classes[key] {
					t.Fatalf("seed %d: %s of class %d was evicted, %s has class %d", seed, key, classes[key], other, classes[other])
				}
			}
			for g := range model.gen {
				if model.gen[g][key] {
					byGen[g]++
				}
				delete(model.gen[g], key)
			}
			delete(classes, key)
			evicted++
		}})
		offsets := map[string]int64{}
		readClasses := func() {
			s := c.shards[0]
			s.mu.Lock()
			defer s.mu.Unlock()
			for id := range s.recs.All() {
				if r := s.recs.At(uint32(id)); r.flags&flagInUse != 0 {
					classes[s.appendLabelsLocked(r, nil)[0].Value] = r.class
				}
			}
		}
		for op := range 6000 {
			if rnd.IntN(40) == 0 {
				c.Age("b")
				model.age()
			}
			key := fmt.Sprint("key", rnd.IntN(40+op/10))
			n := 1 + rnd.IntN(30)
			// The write that goes over the maximum counts as a write of its key
			// before it evicts, in the cache as in the model.
			model.write(key)
			values := make([]byte, 8*n)
			for i := range values {
				values[i] = byte(rnd.Uint32())
			}
			// The classes as eviction will see them: written, not yet evicted.
			limit := c.maxBytes.Swap(0)
			turns := c.shards[0].turns.passed
			if err := c.Insert("b", []byte(key), offsets[key], values); err != nil {
				t.Fatal(err)
			}
			offsets[key] += int64(n)
			for range c.shards[0].turns.passed - turns { // by what the shard holds
				model.age()
				turned++
			}
			readClasses()
			if op%1000 == 999 { // down into generations 2 and 1
				c.SetMaxBytes(limit / 20)
			}
			c.SetMaxBytes(limit)
			if got := c.allocated(); got > limit {
				t.Fatalf("seed %d: %d bytes allocated after eviction, maximum %d", seed, got, limit)
			}
		}
		if st := c.Stats(); evicted < 200 || turned < 20 || byGen[0] == 0 || byGen[1] == 0 || byGen[2] == 0 || int(st.Evictions) != evicted {
			t.Errorf("seed %d: too little happened: %d evicted, by generation %v, %d turns", seed, evicted, byGen, turned)
		}
		// The generations that Stats tells are those of the model.
		g := c.Stats().Buckets[0].Generations
		for i := range g {
			if g[i].Keys != len(model.gen[i]) {
				t.Errorf("seed %d: generation %d has %d keys, want %d", seed, i+1, g[i].Keys, len(model.gen[i]))
			}
		}
	}
}

// TestConservation does a million operations over ten seeds, with regions
// reclaimed underneath, and accounts for every point.
func TestConservation(t *testing.T) {
	t.Parallel()
	seeds, ops := 10, 100_000
	if testing.Short() {
		seeds, ops = 2, 40_000
	}
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(uint64(seed), 77))
		m := newTestMemory(t, 2<<20, 16<<10)
		var handed uint64
		blobs, maxBytes := seed%2 == 1, int64(150<<10)
		if blobs {
			maxBytes = 50 << 10 // of which the records of keys in blobs take most
		}
		c := newTestCache(t, Options{Memory: m, Shards: 2, MaxBytes: maxBytes, AgeCycle: 10_000, Blobs: blobs, Evicted: func(o Evicted) { handed += uint64(len(o.Samples)) }})
		buf := make([]byte, 64*8)
		for op := range ops {
			key := []byte(fmt.Sprint("key", rnd.IntN(500)))
			switch x := rnd.IntN(10_000); {
			case x < 9500:
				at := int64(op/50) + rnd.Int64N(200)
				if rnd.IntN(50) == 0 {
					at -= rnd.Int64N(2000)
				}
				n := 1 + rnd.IntN(8)
				le.PutUint64(buf, rnd.Uint64())
				if err := c.Insert("b", key, at, buf[:8*n]); err != nil {
					t.Fatal(err)
				}
			case x < 9700:
				_, _ = c.Take("b", key)
			case x < 9750:
				c.Pop()
			case x < 9760:
				m.SetBudget(m.Used() - int64(rnd.IntN(3)*m.RegionBytes()))
				m.SetBudget(2 << 20)
			case x < 9800:
				c.Maintain()
			case x == 9800:
				c.RemoveBucket("b")
			default:
				c.Age("b")
			}
		}
		st := checkCache(t, c)
		if st.Evicted != handed || st.Evicted == 0 || st.Reclaimed == 0 || st.Taken == 0 || st.Popped == 0 || st.Removed == 0 || st.Mended == 0 || st.Overwritten == 0 {
			t.Errorf("seed %d: too little happened, or %d points handed on: %+v", seed, handed, st)
		}
		if blobs && (st.BlobPoints == 0 || st.BlobsLost == 0 || st.BlobsRestored == 0) {
			t.Errorf("seed %d: too little happened with blobs: %+v", seed, st)
		}
	}
}

// TestSmallWorld inserts every sequence of three runs into a world of seven
// offsets, sealing the head in between or not, and compares with the map.
func TestSmallWorld(t *testing.T) {
	t.Parallel()
	c := newTestCache(t, Options{Shards: 1, Memory: newTestMemory(t, 512<<20, 256<<10)})
	s := c.shards[0]
	const world, longest, depth = 7, 3, 3
	type step struct {
		from, n int
		seal    bool
	}
	var steps []step
	for from := range world {
		for n := 1; n <= min(longest, world-from); n++ {
			steps = append(steps, step{from, n, false}, step{from, n, true})
		}
	}
	number := uint64(0)
	sequence := make([]int, depth)
	for {
		number++
		want := map[int64]uint64{}
		key := []byte(fmt.Sprint(number))
		for k, i := range sequence {
			st := steps[i]
			var values []byte
			for j := range st.n {
				v := number<<8 | uint64(k*16+j)
				values = le.AppendUint64(values, v)
				want[int64(st.from+j)] = v
			}
			if err := c.Insert("b", key, int64(st.from), values); err != nil {
				t.Fatal(err)
			}
			if st.seal {
				s.sealKey(t, c, key)
			}
		}
		runs, err := c.Take("b", key)
		if err != nil {
			t.Fatal(err)
		}
		got := points("values", runs)
		if len(got) != len(want) {
			t.Fatalf("%v: %d points, want %d", describe(sequence, func(i int) any { return steps[i] }), len(got), len(want))
		}
		next := int64(-1)
		for _, r := range runs {
			if r.Offset <= next {
				t.Fatalf("%v: runs touch or overlap", describe(sequence, func(i int) any { return steps[i] }))
			}
			next = r.Offset + int64(len(r.Values)/8)
		}
		for at, v := range want {
			if got[at] != v {
				t.Fatalf("%v: offset %d is %x, want %x", describe(sequence, func(i int) any { return steps[i] }), at, got[at], v)
			}
		}
		k := 0
		for ; k < depth; k++ {
			if sequence[k]++; sequence[k] < len(steps) {
				break
			}
			sequence[k] = 0
		}
		if k == depth {
			break
		}
	}
	if want := len(steps) * len(steps) * len(steps); number != uint64(want) {
		t.Errorf("%d sequences, want %d", number, want)
	}
	checkCache(t, c)
}

func describe(sequence []int, f func(int) any) (all []any) {
	for _, i := range sequence {
		all = append(all, f(i))
	}
	return all
}

// TestWriterWithAnOldAge is a writer that read its bucket's age, let go of the
// lock, and comes back when another has written to the same series at a later one.
func TestWriterWithAnOldAge(t *testing.T) {
	c := newTestCache(t, Options{Shards: 1})
	if err := c.Insert("b", []byte("key"), 0, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	age := c.shards[0].ageLocked(c.bucket(0))
	c.bucket(0).age.Add(2)
	for _, age := range []uint32{age + 2, age + 1} {
		_, s, id := c.lockKey("b", []byte("key"))
		s.touchLocked(id, age)
		s.mu.Unlock()
	}
	_, s, id := c.lockKey("b", []byte("key"))
	if got := s.recs.At(id).touched; got != age+2 {
		t.Errorf("the key is of age %d, want %d", got, age+2)
	}
	s.mu.Unlock()
	checkCache(t, c)
}

// TestColdestBehindWritten looks for the one series of generation 3 behind many
// that were listed before it and are written still: it is found, they go to the
// queues of their generations in pieces, once, and nothing else moves.
func TestColdestBehindWritten(t *testing.T) {
	const written = 3*relistPiece + 10
	c := newTestCache(t, Options{Shards: 1, Memory: newTestMemory(t, 16<<20, 256<<10), AgeCycle: 1 << 40})
	insert := func(key string) {
		t.Helper()
		if err := c.Insert("b", []byte(key), int64(len(key)), make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
	}
	writeAll := func() {
		for i := range written {
			insert(fmt.Sprint("written ", i))
		}
	}
	writeAll()
	insert("ended")
	c.Age("b")
	writeAll()
	c.Age("b")
	writeAll()
	_, s, ended := c.lockKey("b", []byte("ended"))
	defer s.mu.Unlock()
	class := int(s.recs.At(ended).class)
	pieces := 0
	for {
		id, more := s.oldestLocked(0, class, 3)
		if !more {
			if id != ended {
				t.Errorf("series %d is the coldest, want %d", id, ended)
			}
			break
		}
		pieces++
	}
	if pieces != written/relistPiece {
		t.Errorf("%d pieces, want %d", pieces, written/relistPiece)
	}
	if id := s.coldestLocked(3); id != ended {
		t.Errorf("series %d is the coldest, want %d", id, ended)
	}
	s.removeLocked(ended)
	for gen := 3; gen > 1; gen-- {
		if id := s.coldestLocked(gen); id != noID {
			t.Errorf("series %d is of generation %d, all are of the first", id, gen)
		}
	}
	if id := s.coldestLocked(1); id == noID {
		t.Error("no series is of generation 1, all are")
	}
	if n, err := s.checkListLocked(0, class); n != written || err != nil {
		t.Errorf("%d series in the list, want %d: %v", n, written, err)
	}
}

// TestGenerationsOfABucketAnew uses the place of a bucket again that had become
// old: the series of the new one are young, and age.
func TestGenerationsOfABucketAnew(t *testing.T) {
	c := newTestCache(t, Options{Shards: 1, AgeCycle: 1 << 40})
	for _, name := range []string{"old", "new"} {
		for _, key := range []string{"a", "b"} {
			if err := c.Insert(name, []byte(key), 0, make([]byte, 8)); err != nil {
				t.Fatal(err)
			}
		}
		s := c.shards[0]
		s.mu.Lock()
		b := c.findBucket(name)
		if b.id != 0 {
			t.Fatalf("bucket %s has place %d", name, b.id)
		}
		for id := range uint32(2) { // a turn may have passed in between
			s.touchLocked(id, s.ageLocked(b))
		}
		for gen := 1; gen <= 3; gen++ {
			for other := 3; other > 0; other-- {
				if id := s.coldestLocked(other); (id != noID) != (other == gen) {
					t.Errorf("bucket %s: series %d is of generation %d, all are of %d", name, id, other, gen)
				}
			}
			b.age.Add(1)
		}
		b.age.Add(3)
		s.mu.Unlock()
		checkCache(t, c)
		c.RemoveBucket(name)
	}
}

// sealKey seals the head of a key now.
func (s *shard) sealKey(t *testing.T, c *Cache, key []byte) {
	t.Helper()
	_, locked, id := c.lockKey("b", key)
	if locked == nil {
		t.Fatal("key is gone")
	}
	defer s.mu.Unlock()
	r := s.recs.At(id)
	if r.headLen() == 0 {
		return
	}
	ss := headSamples(s.samples[:0], r, s.hot.Pointer(r.head))
	if !s.sealLocked(id, ss, len(ss)) {
		t.Fatal("no memory")
	}
}
