package ingest

import (
	"errors"
	"math"

	"mcached/mcache"
)

const (
	errNoKey       = "ERR TSDB: the key does not exist"
	errKeyExists   = "ERR TSDB: key already exists"
	errTimestamp   = "ERR TSDB: invalid timestamp, must be a nonnegative integer"
	errSampleValue = "ERR TSDB: invalid value"
	errBlocked     = "ERR TSDB: Error at upsert, update is not supported when DUPLICATE_POLICY is set to BLOCK mode"
	errRetention   = "ERR TSDB: Timestamp is older than retention"
	errBackwards   = "ERR TSDB: timestamp must be equal to or higher than the maximum existing timestamp"
)

// createArgs are the options of TS.CREATE and what goes with them elsewhere.
type createArgs struct {
	seriesOptions
	labels    []mcache.Label
	hasLabels bool
	on        duplicatePolicy // ON_DUPLICATE
	at        []byte          // TIMESTAMP
	retention bool            // that it was said, for TS.ALTER; so the others
	chunkSize bool
	ignore    bool
}

// createKeywords end the labels of LABELS, which some clients do not send last.
var createKeywords = [...]string{"retention", "encoding", "chunk_size", "duplicate_policy", "on_duplicate", "ignore", "timestamp"}

func isCreateKeyword(b []byte) bool {
	for _, w := range createKeywords {
		if equalFold(b, w) {
			return true
		}
	}
	return false
}

// defaultChunkBytes is RedisTimeSeries'; here it is only told.
const defaultChunkBytes = 4096

// parseCreate reads options, and answers what is wrong with them.
func (c *conn) parseCreate(args [][]byte) (a createArgs, ok bool) {
	a.chunkBytes = defaultChunkBytes
	bad := func(what string) (createArgs, bool) {
		c.fail("ERR TSDB: " + what)
		return a, false
	}
	for len(args) > 0 {
		word := string(lower(nil, args[0]))
		args = args[1:]
		if word == "labels" {
			a.hasLabels = true
			for len(args) >= 2 && !isCreateKeyword(args[0]) {
				l := mcache.Label{Name: string(args[0]), Value: string(args[1])}
				if l.Name == "" || l.Value == "" {
					return bad("Couldn't parse LABELS")
				}
				a.labels = append(a.labels, l)
				args = args[2:]
			}
			if len(args) > 0 && !isCreateKeyword(args[0]) {
				return bad("Couldn't parse LABELS")
			}
			continue
		}
		if word == "compressed" || word == "uncompressed" {
			a.uncompressed = word == "uncompressed"
			continue
		}
		if !isCreateKeyword([]byte(word)) {
			return bad("unknown argument '" + clip([]byte(word), 64) + "'")
		}
		if len(args) == 0 {
			return bad("Couldn't parse " + upper(word))
		}
		value := args[0]
		args = args[1:]
		n, isInt := parseInt(value)
		switch word {
		case "retention":
			if !isInt || n < 0 {
				return bad("Couldn't parse RETENTION")
			}
			a.retentionMs, a.retention = n, true
		case "chunk_size":
			if !isInt {
				return bad("Couldn't parse CHUNK_SIZE")
			}
			if n < 48 || n > 1<<20 || n%8 != 0 {
				return bad("CHUNK_SIZE value must be a multiple of 8 in the range [48 .. 1048576]")
			}
			a.chunkBytes, a.chunkSize = n, true
		case "encoding":
			switch {
			case equalFold(value, "compressed"):
			case equalFold(value, "uncompressed"):
				a.uncompressed = true
			default:
				return bad("unknown ENCODING parameter")
			}
		case "duplicate_policy", "on_duplicate":
			p, ok := parsePolicy(value)
			if !ok {
				return bad("Unknown " + upper(word))
			}
			if word == "on_duplicate" {
				a.on = p
			} else {
				a.policy = p
			}
		case "ignore":
			if len(args) == 0 || !isInt || n < 0 {
				return bad("Couldn't parse IGNORE")
			}
			v, ok := parseFloat(args[0])
			if !ok || v < 0 {
				return bad("Couldn't parse IGNORE")
			}
			a.ignoreMs, a.ignoreValue, a.ignore = n, v, true
			args = args[1:]
		case "timestamp":
			a.at = value
		}
	}
	return a, true
}

func upper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c-'a' < 26 {
			b[i] = c - 0x20
		}
	}
	return string(b)
}

// failWith answers an error of the directory or the metric cache.
func (c *conn) failWith(err error) {
	if errors.Is(err, mcache.ErrDirty) {
		c.fail("BUSY " + plain(err) + ", try again later")
		return
	}
	if errors.Is(err, mcache.ErrNoMemory) {
		c.refuse(err)
		return
	}
	c.fail("ERR " + plain(err))
}

func tsCreate(c *conn, args [][]byte) {
	a, ok := c.parseCreate(args[2:])
	if !ok {
		return
	}
	_, existed, err := c.srv.series.create(string(args[1]), a.labels, a.seriesOptions)
	switch {
	case err != nil:
		c.failWith(err)
	case existed:
		c.fail(errKeyExists)
	default:
		c.ok()
	}
}

// timestamp reads a time in ms, or * for now.
func (c *conn) timestamp(b []byte) (int64, bool) {
	if len(b) == 1 && b[0] == '*' {
		return c.nowMs(), true
	}
	t, ok := parseInt(b)
	return t, ok && t >= 0 && t <= mcache.MaxTime
}

// sampleValue reads a value; NaN is legal and is the one NaN.
func sampleValue(b []byte) (float64, bool) {
	if equalFold(b, "nan") {
		return math.NaN(), true
	}
	return parseFloat(b)
}

func tsAdd(c *conn, args [][]byte) {
	v, ok := sampleValue(args[3])
	if !ok {
		c.fail(errSampleValue)
		return
	}
	t, ok := c.timestamp(args[2])
	if !ok {
		c.fail(errTimestamp)
		return
	}
	a, ok := c.parseCreate(args[4:])
	if !ok {
		return
	}
	k, existed := c.srv.series.entry(args[1])
	if !existed {
		var err error
		if k, existed, err = c.srv.series.create(string(args[1]), a.labels, a.seriesOptions); err != nil {
			c.failWith(err)
			return
		}
	}
	t, problem := c.addSample(k, t, v, a.on)
	if problem != "" && !existed {
		k.mu.Lock()
		c.srv.series.abandonLocked(k)
		k.mu.Unlock()
	}
	c.replyAdded(t, problem)
}

func (c *conn) replyAdded(t int64, problem string) {
	if problem != "" {
		c.fail(problem)
	} else {
		c.integer(t)
	}
}

// addSample writes one sample and returns its time, or the words of an error.
func (c *conn) addSample(k *seriesKey, t int64, v float64, on duplicatePolicy) (int64, string) {
	k = k.lock()
	defer k.mu.Unlock()
	d := c.srv.series
	if on == policyNone {
		on = k.policy
	}
	// In order, as nearly all are, nothing has to be read.
	inOrder := k.written && t > k.lastMs
	if !inOrder || k.ignoreMs > 0 {
		lastMs, lastV, has := d.lastLocked(k, c.nowMs())
		switch {
		case !has:
		case k.retentionMs > 0 && t < lastMs && lastMs-t > k.retentionMs:
			return 0, errRetention
		case on == policyLast && t >= lastMs && t-lastMs <= k.ignoreMs && k.ignoreMs > 0 && math.Abs(v-lastV) <= k.ignoreValue:
			return lastMs, ""
		}
		if has && on != policyLast {
			var keep bool
			var problem string
			if v, keep, problem = d.merge(k, t, v, on); problem != "" {
				return 0, problem
			} else if keep {
				return t, ""
			}
		}
	}
	if problem := problemOf(d.write(&c.batch, k, t, v)); problem != "" {
		return 0, problem
	}
	if !k.written || t > k.lastMs {
		k.lastMs, k.written = t, true
	}
	return t, ""
}

// problemOf is the words for an error of write, or none for none.
func problemOf(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, mcache.ErrNoMemory):
		return "OOM command not allowed when used memory > 'maxmemory'."
	case errors.Is(err, mcache.ErrDirty):
		return "BUSY " + plain(err) + ", try again later"
	}
	return "ERR TSDB: " + plain(err)
}

// merge says what to write where there is a sample at t already.
func (d *directory) merge(k *seriesKey, t int64, v float64, on duplicatePolicy) (sum float64, keep bool, problem string) {
	var s mcache.Snapshot
	if !d.cache.Snapshot(k.id, t, t, &s) {
		return v, false, ""
	}
	it := s.Iterator()
	if !it.Next() || it.At().V == staleBits {
		return v, false, ""
	}
	old := math.Float64frombits(it.At().V)
	switch on {
	case policyFirst:
		return old, true, ""
	case policyMin:
		return math.Min(old, v), false, ""
	case policyMax:
		return math.Max(old, v), false, ""
	case policySum:
		return old + v, false, ""
	}
	return 0, false, errBlocked
}

// write puts one sample into the cache by way of the batch b. k.mu is held.
func (d *directory) write(b *mcache.Batch, k *seriesKey, t int64, v float64) error {
	b.Reset(d.bucket)
	b.Series(k.print)
	b.Sample(t, math.Float64bits(v))
	_, err := d.cache.Append(b)
	if err == nil && len(b.Missing()) > 0 {
		_, err = d.cache.AppendNew(b, 0, k.labels)
	}
	if err != nil {
		return err
	}
	if !k.written {
		d.filled(k)
	}
	return nil
}

// tsMAdd writes samples of keys that exist; each has an answer of its own.
func tsMAdd(c *conn, args [][]byte) {
	if len(args)%3 != 1 {
		c.wrongArity("ts.madd")
		return
	}
	c.array(len(args) / 3)
	g := c.takeBundle()
	for args = args[1:]; len(args) > 0; {
		n := min(len(args)/3, bundleKeys)
		for i := range n {
			g.keys[i], g.times[i], g.values[i] = args[3*i], args[3*i+1], args[3*i+2]
		}
		c.addMany(g.keys[:n], g.times[:n], g.values[:n], false)
		args = args[3*n:]
	}
}

// tsIncrBy adds to the last value, with sign -1 for TS.DECRBY.
func tsIncrBy(c *conn, args [][]byte, sign float64) {
	by, ok := parseFloat(args[2])
	if !ok {
		c.fail(errSampleValue)
		return
	}
	a, ok := c.parseCreate(args[3:])
	if !ok {
		return
	}
	t, ok := c.nowMs(), true
	if a.at != nil {
		t, ok = c.timestamp(a.at)
	}
	if !ok {
		c.fail(errTimestamp)
		return
	}
	k, existed, err := c.srv.series.create(string(args[1]), a.labels, a.seriesOptions)
	if err != nil {
		c.failWith(err)
		return
	}
	k = k.lock()
	defer k.mu.Unlock()
	lastMs, last, has := c.srv.series.lastLocked(k, c.nowMs())
	if has && t < lastMs {
		if a.at != nil {
			c.fail(errBackwards)
			return
		}
		t = lastMs // our clock is behind the writer's
	}
	if err := c.srv.series.write(&c.batch, k, t, last+sign*by); err != nil {
		if !existed {
			c.srv.series.abandonLocked(k)
		}
		c.failWith(err)
		return
	}
	k.lastMs, k.written = max(t, k.lastMs), true
	c.integer(t)
}
