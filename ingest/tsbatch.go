package ingest

import "math"

// adder is the command that adds samples: TS.ADD, which creates keys, and of
// which each sample is a command that may fail, or TS.MADD, which answers for
// all of its samples and creates nothing.
type adder uint8

const (
	tsAdds adder = iota
	tsMAdds
)

// addMany answers samples as the command does.
// Those that follow one another and come in the order of time, as nearly all
// do, are written by one Append, which takes each lock of the cache once.
// Whatever has to be looked at first is added alone.
func (c *conn) addMany(names, times, values [][]byte, by adder) {
	for len(names) > 0 {
		n := c.addRun(names, times, values, by)
		if n == 0 {
			n = 1
			at := len(c.B)
			c.add(names[0], times[0], values[0], nil, by)
			if by == tsAdds && c.B[at] == '-' {
				c.countErrorOf(bundleAdd, c.B[at:])
			}
		}
		c.spill()
		names, times, values = names[n:], times[n:], values[n:]
	}
}

// added is a sample of a run.
type added struct {
	k *seriesKey
	t int64
	v float64
}

// addRun writes as many of the first samples as need no look at their series,
// answers them, and returns how many those are.
//
// Their keys stay locked meanwhile, as between a look and a write. Waiting for
// another key's lock while holding some could wait for one who waits for
// those; so a run ends where a lock is not to be had at once.
func (c *conn) addRun(names, times, values [][]byte, by adder) int {
	d, b := c.srv.series, &c.batch
	b.Reset(d.bucket)
	var run [bundleKeys]added
	n := 0
	for n < min(len(names), bundleKeys) {
		v, ok := sampleValue(values[n])
		if !ok {
			break
		}
		t, ok := c.timestamp(times[n])
		if !ok {
			break
		}
		k, ok := d.entry(names[n])
		if !ok {
			break
		}
		if n > 0 && run[n-1].k == k {
			if t <= run[n-1].t || k.rules != nil && !k.inBucketLocked(t) {
				break
			}
		} else {
			if !k.mu.TryLock() {
				break
			}
			if k.moved != nil || !k.written || t <= k.lastMs || k.ignoreMs > 0 || k.rules != nil && !k.inBucketLocked(t) {
				k.mu.Unlock()
				break
			}
			b.Series(k.print)
		}
		b.Sample(t, math.Float64bits(v))
		run[n] = added{k, t, v}
		n++
	}
	if n == 0 {
		return 0
	}
	_, err := d.cache.Append(b)
	// Which ones were not written is known when each is written again.
	again := err != nil || len(b.Missing()) > 0
	for i, a := range run[:n] {
		problem := ""
		if again {
			problem = problemOf(d.write(b, a.k, a.t, a.v))
		}
		if problem == "" {
			if a.k.lastMs = a.t; a.k.rules != nil {
				a.k.addToBucketsLocked(a.t, a.v)
			}
		}
		if i+1 == n || run[i+1].k != a.k {
			a.k.mu.Unlock()
		}
		at := len(c.B)
		if c.replyAdded(a.t, problem); problem != "" && by == tsAdds { // else it is part of an answer
			c.countErrorOf(bundleAdd, c.B[at:])
		}
	}
	return n
}
