package ingest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"mcached/ingest/resp"
	"mcached/mcache"
)

// # Keys and series
//
// RedisTimeSeries names a series by a key and gives it labels; Prometheus
// names it by its labels, one of which is __name__. Here they are the same:
//
//	TS.CREATE temp:1 LABELS room a   is   {__name__="temp:1", room="a"}
//	TS.CREATE t LABELS __name__ temp room a   is   {__name__="temp", room="a"}
//	up{instance="x:1",job="y"}       is the key of a series that Prometheus wrote
//	up                               is {__name__="up"} and no more
//
// So the key is the metric's name unless a label says otherwise, and a key
// may be written as a selector of PromQL. Any bytes are a key, as in Redis: what no
// label may be, the empty key among them, is quoted as Go does. What TS.CREATE is
// told beyond that is kept in a directory on the Go heap, bounded by
// Options.MaxKeys and KeyLimits.MaxKeyBytes; a series without an entry has the
// defaults. Two keys cannot name one series.

const nameLabel = "__name__"

// duplicatePolicy says what becomes of a sample whose time is taken.
type duplicatePolicy uint8

const (
	policyNone duplicatePolicy = iota // not said: block
	policyBlock
	policyFirst
	policyLast
	policyMin
	policyMax
	policySum
)

var policyNames = [...]string{"", "block", "first", "last", "min", "max", "sum"}

func parsePolicy(b []byte) (duplicatePolicy, bool) {
	for p := policyBlock; p <= policySum; p++ {
		if resp.EqualFold(b, policyNames[p]) {
			return p, true
		}
	}
	return policyNone, false
}

// seriesOptions are what TS.CREATE and TS.ALTER set.
type seriesOptions struct {
	retentionMs  int64 // 0 for all
	chunkBytes   int64 // is told by TS.INFO and has no other use
	uncompressed bool  // likewise
	policy       duplicatePolicy
	ignoreMs     int64
	ignoreValue  float64
}

// keyBytes is what a seriesKey and the record of its series take, labels left out.
const keyBytes = 400

// seriesKey is a key with its series.
type seriesKey struct {
	name    string
	labels  []mcache.Label // sorted, with __name__
	implied bool           // __name__ is the key, and no label that was given
	print   mcache.Fingerprint

	// read is for a series of all nodes, which is in no directory; nil: it is this node's.
	read func(from, to int64, s *mcache.Snapshot) bool

	mu sync.Mutex // held from reading what is there to writing what comes of it
	seriesOptions
	id      mcache.SeriesID // where the series was found last, if found
	found   bool
	lastMs  int64      // no sample that came by this key is younger
	written bool       // lastMs means something
	moved   *seriesKey // what TS.ALTER made of it

	rules []*compaction // of which it is the source, nil for none
	from  *compaction   // of which it is the destination

	expiresMs atomic.Int64 // Unix time, 0 for never; it changes with mu and directory.mu held
	seq       uint64       // see directory.order; under directory.mu
}

// given are the labels that the key was given, without an implied __name__.
func (k *seriesKey) given() []mcache.Label {
	if !k.implied {
		return k.labels
	}
	return slices.DeleteFunc(slices.Clone(k.labels), func(l mcache.Label) bool { return l.Name == nameLabel })
}

// directory is the keys that were created.
type directory struct {
	cache  *mcache.Cache
	bucket string
	o      *Options // for what bounds it, beside limits
	limits atomic.Pointer[KeyLimits]

	linking sync.Mutex // held while a rule is made
	mu      sync.RWMutex
	byName  map[string]*seriesKey
	byPrint map[mcache.Fingerprint]*seriesKey
	bytes   int64 // of the keys that are in both
	// empty are those that have no sample, which the cache cannot find.
	empty map[*seriesKey]struct{}
	// order has the keys in the order in which they came, for SCAN.
	order    []listed
	unlisted int // places in order whose keys have gone
	seq      uint64
	expiring map[*seriesKey]struct{} // those that expire
	count    atomic.Int64            // of byName, to be read without mu
}

func newDirectory(o *Options) *directory {
	d := &directory{
		cache: o.Metrics, bucket: o.Bucket, o: o,
		byName:  map[string]*seriesKey{},
		byPrint: map[mcache.Fingerprint]*seriesKey{},
		empty:   map[*seriesKey]struct{}{}, expiring: map[*seriesKey]struct{}{},
	}
	d.limits.Store(&KeyLimits{o.MaxKeyBytes, o.MaxLabels, o.MaxLabelNameBytes, o.MaxLabelValueBytes})
	return d
}

// KeyLimits are the bounds on keys of time series that can change while the
// server runs. The fields of Options that have these names say what they are.
type KeyLimits struct {
	MaxKeyBytes, MaxLabels, MaxLabelNameBytes, MaxLabelValueBytes int
}

// SetKeyLimits changes the bounds on keys of time series, each at least 1. Keys
// that are there stay. Without Options.Metrics there are none, and it does nothing.
func (s *Server) SetKeyLimits(l KeyLimits) {
	if s.series != nil {
		s.series.limits.Store(&l)
	}
}

// make builds the key that a name and labels mean, in no directory yet.
func (d *directory) make(name string, labels []mcache.Label) (*seriesKey, error) {
	k := &seriesKey{name: name}
	if parsed, ok := parseSelector(name); ok && len(labels) == 0 {
		k.labels = parsed
	} else {
		k.labels = slices.Clone(labels)
		if !slices.ContainsFunc(labels, func(l mcache.Label) bool { return l.Name == nameLabel }) {
			k.labels = append(k.labels, mcache.Label{Name: nameLabel, Value: metricName(name)})
			k.implied = true
		}
	}
	slices.SortFunc(k.labels, func(a, b mcache.Label) int { return strings.Compare(a.Name, b.Name) })
	for i, l := range k.labels {
		if l.Name == "" || l.Value == "" || !utf8.ValidString(l.Name) || !utf8.ValidString(l.Value) || i > 0 && l.Name == k.labels[i-1].Name {
			return nil, errors.New("TSDB: Couldn't parse LABELS")
		}
	}
	if err := d.checkLabels(k.labels); err != nil {
		return nil, err
	}
	k.print = d.cache.Fingerprint(k.labels)
	return k, nil
}

// entry returns the key of that name if it was created or written here.
func (d *directory) entry(name []byte) (*seriesKey, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if k, ok := d.byName[string(name)]; ok && !d.expired(k) {
		return k, true
	}
	return nil, false
}

// find returns the key of that name if it exists: because it was created, or
// because the cache has the series.
func (d *directory) find(name string) (*seriesKey, bool) {
	d.mu.RLock()
	k, ok := d.byName[name]
	d.mu.RUnlock()
	if ok && !d.expired(k) {
		return k, true
	} else if ok {
		d.removeKey(k)
	}
	k, err := d.make(name, nil)
	if err != nil {
		return nil, false
	}
	d.mu.RLock()
	other, ok := d.byPrint[k.print]
	d.mu.RUnlock()
	if ok {
		return other, true
	}
	return k, d.locate(k)
}

// create puts the key into the directory and returns it, or the one that was
// there already.
func (d *directory) create(name string, labels []mcache.Label, o seriesOptions) (k *seriesKey, existed bool, err error) {
	if _, ok := d.entry([]byte(name)); !ok && d.isString(name) {
		return nil, false, errNotSeries
	}
	k, existed, err = d.enter(name, labels, o)
	if err == nil && d.isString(name) { // since a moment ago
		d.removeKey(k)
		return nil, false, errNotSeries
	}
	return k, existed, err
}

// enter is create for a name that no string has.
func (d *directory) enter(name string, labels []mcache.Label, o seriesOptions) (k *seriesKey, existed bool, err error) {
	if k, ok := d.find(name); ok {
		// With an entry it keeps what it learns; without one it works as well.
		if kept, err := d.adopt(k); err == nil {
			k = kept
		}
		return k, true, nil
	}
	k, err = d.make(name, labels)
	if err != nil {
		return nil, false, err
	}
	k.seriesOptions = o
	d.mu.Lock()
	defer d.mu.Unlock()
	if other, ok := d.byName[name]; ok {
		return other, true, nil
	}
	if other, ok := d.byPrint[k.print]; ok {
		return nil, false, fmt.Errorf("TSDB: the key %s has the same name and labels", strconv.Quote(other.name))
	}
	if err := d.enterLocked(k); err != nil {
		return nil, false, err
	}
	d.empty[k] = struct{}{}
	d.retain(k, o.retentionMs)
	return k, false, nil
}

// retain makes the retention of a key hold for whoever reads its series.
func (d *directory) retain(k *seriesKey, ms int64) {
	if ms > 0 || k.retentionMs > 0 {
		d.cache.SetRetention(d.bucket, k.print, ms)
	}
}

// adopt gives a key that the cache has, but the directory has not, an entry.
func (d *directory) adopt(k *seriesKey) (*seriesKey, error) {
	d.mu.RLock()
	other, ok := d.byPrint[k.print]
	d.mu.RUnlock()
	if ok {
		return other, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if other, ok := d.byPrint[k.print]; ok {
		return other, nil
	}
	if other, ok := d.byName[k.name]; ok { // which has got other labels meanwhile
		return other, nil
	}
	if err := d.enterLocked(k); err != nil {
		return nil, err
	}
	return k, nil
}

// entryBytes and labelBytes are what an entry of the directory takes beside its
// text: the struct, places in the maps, headers of strings.
const (
	entryBytes = 500
	labelBytes = 32
)

// bytes is what k takes on the heap.
func (k *seriesKey) bytes() int64 {
	n := entryBytes + len(k.name)
	for _, l := range k.labels {
		n += labelBytes + len(l.Name) + len(l.Value)
	}
	return int64(n)
}

// enterLocked puts a key into the directory, which has none of its name or print.
func (d *directory) enterLocked(k *seriesKey) error {
	if len(d.byName) >= d.o.MaxKeys {
		return fmt.Errorf("TSDB: too many keys, the limit is %d%s, there are %d", d.o.MaxKeys, d.o.flag("MaxKeys"), len(d.byName))
	}
	if err := d.roomLocked(k); err != nil {
		return err
	}
	d.bytes += k.bytes()
	d.byName[k.name], d.byPrint[k.print] = k, k
	d.listLocked(k)
	return nil
}

// roomLocked says whether there is room for the text of one more key.
func (d *directory) roomLocked(k *seriesKey) error {
	if n := k.bytes(); d.bytes+n > int64(d.limits.Load().MaxKeyBytes) {
		return fmt.Errorf("TSDB: no room for a key of %d bytes with its labels: all keys have %d, the limit is %d%s", n, d.bytes, d.limits.Load().MaxKeyBytes, d.o.flag("MaxKeyBytes"))
	}
	return nil
}

// leaveLocked takes a key out.
func (d *directory) leaveLocked(k *seriesKey) {
	d.bytes -= k.bytes()
	delete(d.byName, k.name)
	delete(d.byPrint, k.print)
	delete(d.empty, k)
	d.unlistLocked(k)
	d.retain(k, 0)
}

// checkLabels holds labels to the bounds that remote write has as well.
func (d *directory) checkLabels(labels []mcache.Label) error {
	most := d.limits.Load()
	if len(labels) > most.MaxLabels {
		return fmt.Errorf("TSDB: a series of %d labels, the limit is %d%s", len(labels), most.MaxLabels, d.o.flag("MaxLabels"))
	}
	for _, l := range labels {
		if len(l.Name) > most.MaxLabelNameBytes {
			return fmt.Errorf("TSDB: a label's name of %d bytes, the limit is %d%s", len(l.Name), most.MaxLabelNameBytes, d.o.flag("MaxLabelNameBytes"))
		}
		if len(l.Value) > most.MaxLabelValueBytes {
			return fmt.Errorf("TSDB: label %s has a value of %d bytes, the limit is %d%s", strconv.Quote(l.Name), len(l.Value), most.MaxLabelValueBytes, d.o.flag("MaxLabelValueBytes"))
		}
	}
	return nil
}

// locate finds the key's series in the cache: that with these labels and no others.
func (d *directory) locate(k *seriesKey) bool {
	var buf [16]mcache.Label
	if k.found {
		if l, ok := d.cache.Labels(k.id, buf[:0]); ok && len(l) == len(k.labels) {
			return true
		}
		k.found = false
	}
	ids, err := d.cache.Select(d.bucket, equalMatchers(k.labels), nil)
	if err != nil {
		return false
	}
	for _, id := range ids {
		if l, ok := d.cache.Labels(id, buf[:0]); ok && len(l) == len(k.labels) {
			k.id, k.found = id, true
			return true
		}
	}
	return false
}

func equalMatchers(labels []mcache.Label) []mcache.Matcher {
	ms := make([]mcache.Matcher, len(labels))
	for i, l := range labels {
		ms[i] = mcache.Matcher{Type: mcache.MatchEqual, Name: l.Name, Value: l.Value}
	}
	return ms
}

// bytesOf is what the samples of k take as they are stored.
func (d *directory) bytesOf(k *seriesKey) int64 {
	if k.read != nil {
		return 0 // they were lent when they came
	}
	k = k.lock()
	defer k.mu.Unlock()
	if !d.locate(k) {
		return 0
	}
	return d.cache.SeriesBytes(k.id)
}

// selectKeys returns the series that all filters match, sorted by key, empty
// ones that were created included.
func (d *directory) selectKeys(filters []filter, lend func(int64) error) ([]*seriesKey, error) {
	ms := make([]mcache.Matcher, len(filters))
	for i := range filters {
		ms[i] = filters[i].matcher()
	}
	ids, err := d.cache.Select(d.bucket, ms, nil)
	if err != nil {
		return nil, err
	}
	if err := lend(keyRoom * int64(len(ids))); err != nil {
		return nil, err
	}
	found := make(map[*seriesKey]struct{}, len(ids))
	var labels []mcache.Label
	for _, id := range ids {
		var ok bool
		if labels, ok = d.cache.Labels(id, labels[:0]); !ok {
			continue
		}
		if k := d.keyOf(id, labels); !d.expired(k) {
			found[k] = struct{}{}
		}
	}
	d.mu.RLock()
	for k := range d.empty {
		if !d.expired(k) && !slices.ContainsFunc(filters, func(f filter) bool { return !f.matches(k.labels) }) {
			found[k] = struct{}{}
		}
	}
	d.mu.RUnlock()
	return slices.SortedFunc(maps.Keys(found), func(a, b *seriesKey) int { return strings.Compare(a.name, b.name) }), nil
}

// keyOf is the key of a series in the cache: the one that created it, or the
// selector that means it.
func (d *directory) keyOf(id mcache.SeriesID, labels []mcache.Label) *seriesKey {
	print := d.cache.Fingerprint(labels)
	d.mu.RLock()
	k, ok := d.byPrint[print]
	d.mu.RUnlock()
	if ok {
		return k
	}
	name := selector(labels)
	_, braces := parseSelector(name)
	return &seriesKey{name: name, labels: slices.Clone(labels), implied: !braces, print: print, id: id, found: true}
}

// exists is find for names that were created or written here: what came in by
// labels is no key to EXISTS and DEL, which are about other things.
func (d *directory) exists(name []byte) bool {
	_, ok := d.entry(name)
	return ok
}

// filled notes that a key has a sample now.
func (d *directory) filled(k *seriesKey) {
	d.mu.RLock()
	_, was := d.empty[k]
	d.mu.RUnlock()
	if was {
		d.mu.Lock()
		delete(d.empty, k)
		d.mu.Unlock()
	}
}
