package ingest

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"

	"mcached/kvcache"
	"mcached/mcache"
)

// # One key space
//
// A series that was created or written by a TS command is a key like others: it
// is scanned, counted, renamed, expires, and no string can have its name as well.
// What remote write brought is no key until a TS command writes to it.
//
// Keys of series are in the directory, not in the cache of strings, where they
// could be evicted. Each has a number that grows with each that comes, by which
// SCAN goes on when it has been through the strings. Commands about strings look into the directory
// when they find no string, and those that store one remove a series of that
// name; both look at one counter while there are no series.
//
// A string and a series that are made at the same moment by two clients: each is
// put in its place before the other is looked for, so that one at least is seen,
// and it is the series that is removed.

// seriesType is what TYPE says of a series, and what SCAN asks for it by.
const (
	seriesType      = "TSDB-TYPE"
	seriesTypeLower = "tsdb-type"
)

// listed is a place in the directory's order.
type listed struct {
	seq uint64
	k   *seriesKey // nil if it has gone
}

// seriesPhase in a cursor says that the strings have been scanned; below it is
// the next number. Cursors stay below 2^53, as some clients read them as doubles.
const seriesPhase = 1 << 52

// listLocked gives k its number.
func (d *directory) listLocked(k *seriesKey) {
	d.seq++
	k.seq = d.seq
	d.order = append(d.order, listed{k.seq, k})
	d.count.Store(int64(len(d.byName)))
}

// takeOverLocked gives n the number of k, which has left and has the same name:
// whoever scans meanwhile must not miss it.
func (d *directory) takeOverLocked(k, n *seriesKey) {
	i, ok := d.placeLocked(k.seq)
	if ok {
		d.unlisted--
	} else {
		d.order = slices.Insert(d.order, i, listed{})
	}
	n.seq = k.seq
	d.order[i] = listed{n.seq, n}
	d.count.Store(int64(len(d.byName)))
}

func (d *directory) unlistLocked(k *seriesKey) {
	if i, ok := d.placeLocked(k.seq); ok && d.order[i].k == k {
		d.order[i].k = nil
		d.unlisted++
	}
	if d.unlisted > 64 && d.unlisted > len(d.order)/2 {
		d.order = slices.DeleteFunc(d.order, func(l listed) bool { return l.k == nil })
		d.unlisted = 0
	}
	delete(d.expiring, k)
	d.count.Store(int64(len(d.byName)))
}

// placeLocked is where in the order the number seq is, or the next one.
func (d *directory) placeLocked(seq uint64) (i int, ok bool) {
	return slices.BinarySearchFunc(d.order, seq, func(l listed, seq uint64) int { return cmp.Compare(l.seq, seq) })
}

// expired says that k's time has passed.
func (d *directory) expired(k *seriesKey) bool {
	ms := k.expiresMs.Load()
	return ms != 0 && ms <= d.o.Now().UnixMilli()
}

// scan calls f for the names of about count keys from number seq down, 0 being the
// youngest, and returns the number to go on with, 0 at the end. It goes down so
// that it ends however many keys come meanwhile. f must not call the directory.
func (d *directory) scan(seq uint64, count int, f func(name string)) (next uint64) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	from := len(d.order) - 1
	if seq != 0 {
		if i, ok := d.placeLocked(seq); ok {
			from = i
		} else {
			from = i - 1
		}
	}
	for i := from; i >= 0; i-- {
		if count == 0 {
			return d.order[i].seq
		}
		if k := d.order[i].k; k != nil && !d.expired(k) {
			f(k.name)
			count--
		}
	}
	return 0
}

// randomName is one of the names.
func (d *directory) randomName() (name string, ok bool) {
	if d == nil {
		return "", false
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if len(d.order) == 0 {
		return "", false
	}
	for i, from := 0, rand.IntN(len(d.order)); i < len(d.order); i++ {
		if k := d.order[(from+i)%len(d.order)].k; k != nil && !d.expired(k) {
			return k.name, true
		}
	}
	return "", false
}

// keys is how many there are, as DBSIZE counts them.
func (d *directory) keys() int {
	if d == nil {
		return 0
	}
	return int(d.count.Load())
}

// counts is how many keys there are, and how many of them expire.
func (d *directory) counts() (keys, expiring int) {
	if d.keys() == 0 {
		return 0, 0
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.byName), len(d.expiring)
}

// isSeries says that a key is a series. It may be asked under a lock of the cache
// of strings.
func (s *Server) isSeries(db int, key []byte) bool {
	d := s.seriesOf(db)
	return d.keys() > 0 && d.exists(key)
}

// typed is what is found under a key, a series if the cache has nothing. It may be
// asked under a lock of the cache.
func (s *Server) typed(db int, key []byte, kind kvcache.Kind, ok bool) (kvcache.Kind, bool) {
	if !ok && s.isSeries(db, key) {
		return kindSeries, true
	}
	return kind, ok
}

// displace removes series whose names strings have taken.
func (s *Server) displace(db int, keys [][]byte) {
	if d := s.seriesOf(db); d.keys() > 0 {
		for _, k := range keys {
			d.remove(k)
		}
	}
}

// isString says that name is a key of another type than a series.
func (d *directory) isString(name string) bool {
	return d.o.Blobs.At(0).Has([]byte(name))
}

// expiry is when a key expires, 0 for never.
func (d *directory) expiry(name []byte) (ms int64, ok bool) {
	if d.keys() == 0 {
		return 0, false
	}
	k, ok := d.entry(name)
	if !ok {
		return 0, false
	}
	return k.expiresMs.Load(), true
}

// expireAt asks change for the new time of a key, and whether to set it. A time
// that has passed removes the key.
func (d *directory) expireAt(name []byte, change func(oldMs int64) (ms int64, set bool)) (done bool) {
	if d.keys() == 0 {
		return false
	}
	k, ok := d.entry(name)
	if !ok {
		return false
	}
	k = k.lock()
	ms, set := change(k.expiresMs.Load())
	if set {
		d.mu.Lock()
		if set = d.byName[k.name] == k; set {
			if k.expiresMs.Store(ms); ms != 0 {
				d.expiring[k] = struct{}{}
			} else {
				delete(d.expiring, k)
			}
		}
		d.mu.Unlock()
	}
	k.mu.Unlock()
	if set && d.expired(k) {
		d.removeKey(k)
	}
	return set
}

// sweep removes what has expired.
func (d *directory) sweep() {
	if d.keys() == 0 {
		return
	}
	d.mu.RLock()
	var gone []*seriesKey
	for k := range d.expiring {
		if d.expired(k) {
			gone = append(gone, k)
		}
	}
	d.mu.RUnlock()
	for _, k := range gone {
		d.removeKey(k)
	}
}

// keyBytes is what a key costs, its samples included.
func (d *directory) keyBytes(name []byte) (n int64, ok bool) {
	if d.keys() == 0 {
		return 0, false
	}
	k, ok := d.entry(name)
	if !ok {
		return 0, false
	}
	return k.bytes() + d.bytesOf(k), true
}

// rename gives a key another name, that no other has. An implied metric name
// changes with it, so that the samples move to another series.
func (d *directory) rename(key, as []byte) error {
	k, ok := d.entry(key)
	if !ok {
		return errGone
	}
	_, err := d.relabelAs(k, string(as), k.given())
	return err
}

// copyAs makes another key with the options, labels and samples of one.
func (d *directory) copyAs(key, as []byte) error {
	k, ok := d.entry(key)
	if !ok {
		return errGone
	}
	k = k.lock()
	defer k.mu.Unlock()
	n, existed, err := d.create(string(as), k.given(), k.seriesOptions)
	if err != nil {
		return err
	}
	if existed {
		return errExists
	}
	n.mu.Lock() // nobody who has it waits for k: it is new
	defer n.mu.Unlock()
	some, err := d.copySamples(k, n)
	if err != nil {
		d.abandonLocked(n)
		return err
	}
	if n.lastMs, n.written = k.lastMs, k.written && some; some {
		d.filled(n)
	}
	if ms := k.expiresMs.Load(); ms != 0 {
		d.mu.Lock()
		n.expiresMs.Store(ms)
		d.expiring[n] = struct{}{}
		d.mu.Unlock()
	}
	return nil
}

// errHistograms says that a series has what only remote write brings and takes away.
var errHistograms = errors.New("TSDB: the series has native histograms, which these commands do not move")

// copySamples writes the samples of k to the labels of n as well, and reports
// whether there were any. Both are locked.
func (d *directory) copySamples(k, n *seriesKey) (some bool, err error) {
	var s mcache.Snapshot
	if !d.locate(k) || !d.cache.Snapshot(k.id, -mcache.MaxTime, mcache.MaxTime, &s) {
		return false, nil
	}
	if s.HasRecords() {
		return false, errHistograms
	}
	batch := make([]mcache.Sample, 0, moveSamples)
	write := func() error {
		some = some || len(batch) > 0
		err := d.cache.AppendSamples(d.bucket, n.labels, batch...)
		batch = batch[:0]
		return err
	}
	for it := s.Iterator(); it.Next(); {
		if batch = append(batch, it.At()); len(batch) == cap(batch) {
			if err := write(); err != nil {
				return some, err
			}
		}
	}
	if len(batch) > 0 {
		err = write()
	}
	return some, err
}
