package ingest

import (
	"errors"
	"math"

	"mcached/ingest/admission"
	"mcached/ingest/resp"
	"mcached/mcache"
)

const (
	errNoKey       = "ERR TSDB: the key does not exist"
	errKeyExists   = "ERR TSDB: key already exists"
	errTimestamp   = "ERR TSDB: invalid timestamp, must be a nonnegative integer"
	errNotTSDB     = "ERR TSDB: the key is not a TSDB key"
	errSampleValue = "ERR TSDB: invalid value"
	errIncrement   = "ERR TSDB: invalid increase/decrease value"
	errIncrNaN     = "ERR TSDB: cannot increment/decrement NaN value"
	errBlocked     = "ERR TSDB: Error at upsert, update is not supported when DUPLICATE_POLICY is set to BLOCK mode"
	errNaN         = "ERR TSDB: Error at upsert, update is not supported when either current or new value is NaN and DUPLICATE_POLICY is MAX/MIN/SUM"
	errRetention   = "ERR TSDB: Timestamp is older than retention"
	errBackwards   = "ERR TSDB: timestamp must be equal to or higher than the maximum existing timestamp"
)

// Errors of the directory.
var (
	errGone      = errors.New("TSDB: the key does not exist")
	errExists    = errors.New("TSDB: key already exists")
	errNotSeries = errors.New("TSDB: the key is not a TSDB key")
)

// failWith answers an error of the directory or the metric cache.
func (c *conn) failWith(err error) {
	if errors.Is(err, mcache.ErrDirty) || errors.Is(err, mcache.ErrBuckets) {
		c.Fail("BUSY " + plain(err) + ", try again later")
		return
	}
	if errors.Is(err, mcache.ErrNoMemory) {
		c.refuse(err)
		return
	}
	if errors.As(err, new(*admission.Refusal)) {
		c.refusedRoom(err)
		return
	}
	c.Fail("ERR " + plain(err))
}

func tsCreate(c *conn, args [][]byte) {
	a, ok := c.parseCreate(args[2:])
	if !ok {
		return
	}
	_, existed, err := c.srv.series.create(string(args[1]), a.labels, a.seriesOptions)
	switch {
	case err == errNotSeries:
		c.Fail(errKeyExists)
	case err != nil:
		c.failWith(err)
	case existed:
		c.Fail(errKeyExists)
	default:
		c.OK()
	}
}

// timestamp reads a time in ms, or * for now.
func (c *conn) timestamp(b []byte) (int64, bool) {
	if len(b) == 1 && b[0] == '*' {
		return c.nowMs(), true
	}
	t, ok := resp.ParseInt(b)
	return t, ok && t >= 0 && t <= mcache.MaxTime
}

// sampleValue reads a value; NaN is legal and is the one NaN. As in
// RedisTimeSeries a point has digits on both sides, and there are no
// hexadecimal numbers.
func sampleValue(b []byte) (float64, bool) {
	if resp.EqualFold(b, "nan") || resp.EqualFold(b, "-nan") {
		return math.NaN(), true
	}
	for i, c := range b {
		if c == '.' && (i == 0 || i+1 == len(b) || b[i-1]-'0' > 9 || b[i+1]-'0' > 9) || c|0x20 == 'x' {
			return 0, false
		}
	}
	return resp.ParseFloat(b)
}

func tsAdd(c *conn, args [][]byte) { c.add(args[1], args[2], args[3], args[4:], tsAdds) }

// add is a TS.ADD with its options, or one sample of a TS.MADD.
func (c *conn) add(name, at, value []byte, options [][]byte, by adder) {
	v, ok := sampleValue(value)
	if !ok {
		c.Fail(errSampleValue)
		return
	}
	t, ok := c.timestamp(at)
	if !ok {
		c.Fail(errTimestamp)
		return
	}
	a, ok := c.parseCreate(options)
	if !ok {
		return
	}
	d := c.srv.series
	k, existed := d.entry(name)
	var err error
	switch {
	case existed:
	case by == tsAdds:
		k, existed, err = d.create(string(name), a.labels, a.seriesOptions)
	default:
		if k, existed = d.find(string(name)); !existed {
			if d.isString(string(name)) {
				c.Fail(errNotTSDB)
			} else {
				c.Fail(errNoKey)
			}
			return
		}
	}
	if err != nil {
		c.failWith(err)
		return
	}
	t, problem := c.addSample(k, t, v, a.on)
	if problem != "" && !existed {
		k.mu.Lock()
		d.abandonLocked(k)
		k.mu.Unlock()
	}
	c.replyAdded(t, problem)
}

func (c *conn) replyAdded(t int64, problem string) {
	if problem != "" {
		c.Fail(problem)
	} else {
		c.Int(t)
	}
}

// addSample writes one sample and returns its time, or the words of an error.
func (c *conn) addSample(k *seriesKey, t int64, v float64, on duplicatePolicy) (int64, string) {
	k = k.lock()
	t, problem := c.addLocked(k, t, v, on)
	k.mu.Unlock()
	c.tellCompacted()
	return t, problem
}

// addLocked is addSample for a key that is locked.
func (c *conn) addLocked(k *seriesKey, t int64, v float64, on duplicatePolicy) (int64, string) {
	d := c.srv.series
	if on == policyNone {
		on = k.policy
	}
	// In order, as nearly all are, nothing has to be read.
	lastMs, has := k.lastMs, k.written
	if !has || t <= lastMs || k.ignoreMs > 0 {
		var lastV float64
		lastMs, lastV, has = d.lastLocked(k, c.nowMs())
		switch {
		case !has:
		case k.retentionMs > 0 && t < lastMs && lastMs-t > k.retentionMs:
			return 0, errRetention
		case on == policyLast && k.ignores(t, v, lastMs, lastV):
			return lastMs, ""
		}
		if has && (on != policyLast || v != v) {
			var keep bool
			var problem string
			if v, keep, problem = d.merge(k, t, v, on); problem != "" {
				return 0, problem
			} else if keep {
				return t, ""
			}
		}
	}
	if problem := problemOf(c.storeLocked(k, t, v, lastMs, has)); problem != "" {
		return 0, problem
	}
	return t, ""
}

// storeLocked writes a sample that is to be written, and has rules follow it. The
// youngest that there is, if has, is at lastMs.
func (c *conn) storeLocked(k *seriesKey, t int64, v float64, lastMs int64, has bool) error {
	if err := c.srv.series.write(&c.batch, k, t, v); err != nil {
		return err
	}
	outOfOrder := has && t <= lastMs
	if !outOfOrder {
		lastMs = t
	}
	k.lastMs, k.written = lastMs, true
	if k.rules != nil {
		c.compactLocked(k, t, v, outOfOrder)
	}
	return nil
}

// ignores says that IGNORE spares a sample: it is near the last one. NaN is
// near nothing.
func (k *seriesKey) ignores(t int64, v float64, lastMs int64, last float64) bool {
	return t >= lastMs && t-lastMs <= k.ignoreMs && math.Abs(v-last) <= k.ignoreValue
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
	_, old, ok := newestOf(&s)
	if !ok {
		return v, false, ""
	}
	switch wasNaN, isNaN := old != old, v != v; {
	case on == policyNone || on == policyBlock:
		return 0, false, errBlocked
	case wasNaN != isNaN && (on == policyMin || on == policyMax || on == policySum):
		return 0, false, errNaN
	case isNaN:
		return old, true, "" // a number is worth more than none, whatever the policy
	case wasNaN:
		return v, false, ""
	}
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
	return v, false, ""
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
	c.Array(len(args) / 3)
	g := c.takeBundle()
	for args = args[1:]; len(args) > 0; {
		n := min(len(args)/3, bundleKeys)
		for i := range n {
			g.keys[i], g.times[i], g.values[i] = args[3*i], args[3*i+1], args[3*i+2]
		}
		c.addMany(g.keys[:n], g.times[:n], g.values[:n], tsMAdds)
		args = args[3*n:]
	}
}

// tsIncrBy adds to the last value, with sign -1 for TS.DECRBY.
func tsIncrBy(c *conn, args [][]byte, sign float64) {
	by, ok := resp.ParseFloat(args[2])
	if !ok {
		c.Fail(errIncrement)
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
		c.Fail(errTimestamp)
		return
	}
	k, existed, err := c.srv.series.create(string(args[1]), a.labels, a.seriesOptions)
	if err != nil {
		c.failWith(err)
		return
	}
	k = k.lock()
	defer c.tellCompacted()
	defer k.mu.Unlock()
	lastMs, last, has := c.srv.series.lastLocked(k, c.nowMs())
	if has && t < lastMs {
		if a.at != nil {
			c.Fail(errBackwards)
			return
		}
		t = lastMs // our clock is behind the writer's
	}
	sum := last + sign*by
	switch {
	case last != last:
		c.Fail(errIncrNaN)
		return
	case has && k.ignores(t, sum, lastMs, last):
		c.Int(lastMs)
		return
	}
	if err := c.storeLocked(k, t, sum, lastMs, has); err != nil {
		if !existed {
			c.srv.series.abandonLocked(k)
		}
		c.failWith(err)
		return
	}
	c.Int(t)
}
