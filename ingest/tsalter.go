package ingest

import (
	"fmt"
	"maps"
	"slices"

	"mcached/mcache"
)

// tsAlter changes options. New labels make another series, to which the
// samples move.
func tsAlter(c *conn, args [][]byte) {
	d := c.srv.series
	k, ok := c.findSeries(args[1])
	if !ok {
		return
	}
	a, ok := c.parseCreate(args[2:])
	if !ok {
		return
	}
	k, err := d.adopt(k)
	if err != nil {
		c.failWith(err)
		return
	}
	if a.hasLabels {
		if k, err = d.relabel(k, a.labels); err != nil {
			c.failWith(err)
			return
		}
	}
	k = k.lock()
	defer k.mu.Unlock()
	if a.retention {
		c.srv.series.retain(k, a.retentionMs)
		k.retentionMs = a.retentionMs
	}
	if a.chunkSize {
		k.chunkBytes = a.chunkBytes
	}
	if a.policy != policyNone {
		k.policy = a.policy
	}
	if a.ignore {
		k.ignoreMs, k.ignoreValue = a.ignoreMs, a.ignoreValue
	}
	c.OK()
}

// lock locks the key, or the one that it was altered into.
func (k *seriesKey) lock() *seriesKey {
	k.mu.Lock()
	for k.moved != nil {
		n := k.moved
		k.mu.Unlock()
		k = n
		k.mu.Lock()
	}
	return k
}

// current is the key, or the one that it was altered into.
func (k *seriesKey) current() *seriesKey {
	k = k.lock()
	k.mu.Unlock()
	return k
}

// relabel gives a key other labels, and returns what stands for it now. What
// is to stand for it is in the directory, and locked, before the first sample
// moves: whoever wants the same labels meanwhile finds them taken.
func (d *directory) relabel(k *seriesKey, labels []mcache.Label) (*seriesKey, error) {
	return d.relabelAs(k, k.name, labels)
}

// relabelAs is relabel with another name, which no key has.
func (d *directory) relabelAs(k *seriesKey, name string, labels []mcache.Label) (*seriesKey, error) {
	n, err := d.make(name, labels)
	if err != nil {
		return nil, err
	}
	k = k.lock()
	defer k.mu.Unlock()
	if n.print == k.print {
		return d.renameOnly(k, name)
	}
	n.mu.Lock() // nobody else knows it yet
	defer n.mu.Unlock()
	if err := d.reserve(k, n); err != nil {
		return nil, err
	}
	n.seriesOptions, n.lastMs, n.written = k.seriesOptions, k.lastMs, k.written
	moved := false
	if d.locate(n) {
		err = fmt.Errorf("TSDB: there is a series %s already", selector(n.labels))
	} else if moved, err = d.move(k, n); err != nil && d.locate(n) {
		_, _ = d.cache.Delete(n.id, -mcache.MaxTime, mcache.MaxTime) // k has all of it
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		delete(d.byPrint, n.print)
		d.bytes -= n.bytes()
		n.moved = k // for those who wait for it
		return nil, err
	}
	d.leaveLocked(k)
	d.retain(n, n.retentionMs)
	d.replaceLocked(k, n)
	if !moved {
		d.empty[n] = struct{}{}
	}
	n.takeRulesLocked(k)
	k.moved = n
	return n, nil
}

// renameOnly gives a key that keeps its labels another name. k.mu is held.
func (d *directory) renameOnly(k *seriesKey, name string) (*seriesKey, error) {
	if k.name == name {
		return k, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byName[k.name] != k {
		return nil, errGone
	}
	n := &seriesKey{name: name, labels: k.labels, implied: k.implied, print: k.print, seriesOptions: k.seriesOptions, id: k.id, found: k.found, lastMs: k.lastMs, written: k.written}
	_, empty := d.empty[k]
	d.leaveLocked(k)
	d.bytes += n.bytes()
	d.byPrint[n.print] = n
	d.retain(n, n.retentionMs)
	d.replaceLocked(k, n)
	if empty {
		d.empty[n] = struct{}{}
	}
	n.takeRulesLocked(k)
	k.moved = n
	return n, nil
}

// replaceLocked puts n, which has all that k had, in the place that k has left.
func (d *directory) replaceLocked(k, n *seriesKey) {
	d.byName[n.name] = n
	if n.name == k.name {
		d.takeOverLocked(k, n)
	} else {
		d.listLocked(n)
	}
	if ms := k.expiresMs.Load(); ms != 0 {
		n.expiresMs.Store(ms)
		d.expiring[n] = struct{}{}
	}
}

// reserve puts the labels of n into the directory, of which k is to become n.
// Both are locked.
func (d *directory) reserve(k, n *seriesKey) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byName[k.name] != k {
		return errGone // it was removed meanwhile
	}
	if other, taken := d.byPrint[n.print]; taken {
		return fmt.Errorf("TSDB: the key %q has the same name and labels", other.name)
	}
	if err := d.roomLocked(n); err != nil {
		return err
	}
	d.byPrint[n.print] = n
	d.bytes += n.bytes()
	return nil
}

// moveSamples is how many samples move at a time.
const moveSamples = 4096

// move copies the samples of k to the labels of n, then removes them from k,
// and reports whether there were any. If it fails, k has all of its own. Both are
// locked.
func (d *directory) move(k, n *seriesKey) (some bool, err error) {
	if some, err = d.copySamples(k, n); err != nil || !some {
		return false, err
	}
	_, err = d.cache.Delete(k.id, -mcache.MaxTime, mcache.MaxTime)
	return some, err
}

// tsDel removes a range of samples and answers how many those were.
func tsDel(c *conn, args [][]byte) {
	d := c.srv.series
	k, ok := c.findSeries(args[1])
	if !ok {
		return
	}
	from, ok := bound(args[2], "-", 0)
	if !ok {
		c.Fail("ERR TSDB: wrong fromTimestamp")
		return
	}
	to, ok := bound(args[3], "+", mcache.MaxTime)
	if !ok {
		c.Fail("ERR TSDB: wrong toTimestamp")
		return
	}
	k = k.lock()
	n, err := d.cutLocked(k, from, to, c.nowMs())
	if k.rules != nil && n > 0 {
		c.cutSourceLocked(k, from, to)
	}
	k.mu.Unlock()
	c.tellCompacted()
	if err != nil {
		c.failWith(err)
		return
	}
	c.Int(int64(n))
}

// cutLocked removes the samples of k from from to to. k.mu is held.
func (d *directory) cutLocked(k *seriesKey, from, to, nowMs int64) (n int, err error) {
	if from > to || !d.locate(k) {
		return 0, nil
	}
	if n, err = d.cache.Delete(k.id, from, to); err != nil {
		return n, err
	}
	if k.written && k.lastMs <= to {
		k.written = false
	}
	if _, _, some := d.lastLocked(k, nowMs); !some {
		d.mu.Lock()
		if d.byName[k.name] == k {
			d.empty[k] = struct{}{}
			k.written = false // so that its next sample takes it out of there
		}
		d.mu.Unlock()
	}
	return n, nil
}

// abandonLocked forgets a key that was created for a sample that could not be
// written, unless another was. k.mu is held.
func (d *directory) abandonLocked(k *seriesKey) {
	d.mu.Lock()
	_, empty := d.empty[k]
	leaves := empty && d.byName[k.name] == k
	if leaves {
		d.leaveLocked(k)
	}
	d.mu.Unlock()
	if leaves {
		d.leaveRulesLocked(k)
	}
}

// remove forgets a key that was created or written here, with its samples.
func (d *directory) remove(name []byte) bool {
	k, ok := d.entry(name)
	return ok && d.removeKey(k)
}

// findSeries is the series of a key, or answers that there is none.
func (c *conn) findSeries(key []byte) (*seriesKey, bool) {
	k, ok := c.srv.series.find(string(key))
	switch {
	case ok:
	case c.cache().Has(key):
		c.Fail(errWrongType)
	default:
		c.Fail(errNoKey)
	}
	return k, ok
}

// removeAll removes all keys that were created or written here, for FLUSHALL.
func (d *directory) removeAll() {
	d.mu.RLock()
	all := slices.Collect(maps.Values(d.byName))
	d.mu.RUnlock()
	for _, k := range all {
		d.removeKey(k)
	}
}

func (d *directory) removeKey(k *seriesKey) bool {
	k = k.lock()
	defer k.mu.Unlock()
	d.mu.Lock()
	there := d.byName[k.name] == k
	if there {
		d.leaveLocked(k)
	}
	d.mu.Unlock()
	if there {
		d.leaveRulesLocked(k)
	}
	if there && d.locate(k) {
		// Without memory to write what stays of a block nothing need stay here.
		_, _ = d.cache.Delete(k.id, -mcache.MaxTime, mcache.MaxTime)
	}
	k.written, k.found = false, false
	return there
}
