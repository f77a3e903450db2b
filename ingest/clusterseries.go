package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"

	"mcached/mcache"
)

// # Series of a cluster
//
// TS.MGET, TS.MRANGE, TS.MREVRANGE and TS.QUERYINDEX are about the series of all
// nodes, whichever is asked. Samples come through ClusterOptions.Series, which
// has the copies of a series put together. Names do not come with them: a key of
// a TS command is known to the directory of the node that it was created at. So
// all directories are asked as well, after the samples, and a series that none
// has a name for is named by its labels, as on one node.
//
// A key without samples counts at the node that serves it. A node where a key was
// before its slot went elsewhere still knows the name of the samples that it has:
// they are shown with those of today. If the key has other labels now, they are
// shown by their labels.
//
// A node that does not answer makes the command fail, with CLUSTERDOWN, until the
// others know that it has gone: an answer of these commands cannot say that it
// is not whole. Behind a gate, in transactions and scripts, nobody can be asked.

// SeriesSelection is what a command wants of series.
type SeriesSelection struct {
	Filters  []SeriesFilter
	From, To int64 // ms, inclusive; math.MinInt64 and math.MaxInt64 for all
	// LabelsOnly says that no samples are read, LastOnly that the newest is.
	LabelsOnly, LastOnly bool
	// Keys is to be handed to Server.SeriesKeys of all nodes.
	Keys []byte
}

// SeriesFilter is what a label has to be: one of Set, or none of them if Not is
// set. "" is a label that is not there.
type SeriesFilter struct {
	Label string
	Set   []string
	Not   bool
}

// SeriesOfAll is what all nodes have.
type SeriesOfAll struct {
	Series []SeriesFound
	Keys   []string // what Server.SeriesKeys put
}

// SeriesFound is a series with the means to read it.
type SeriesFound struct {
	Labels []mcache.Label // sorted
	Read   func(from, to int64, s *mcache.Snapshot) bool
}

// keyText is a key as nodes tell each other of it.
type keyText struct {
	Name    []byte
	Labels  []mcache.Label
	Implied bool
	Here    bool // the node that tells of it serves it
	Empty   bool
}

// errAlone is what RedisTimeSeries says, too.
const errAlone = "ERR Can not run multi sharded command inside a multi exec, lua, or when blocking is not allowed"

// selectSeries finds what filters match, sorted by key, at all nodes. If it
// returns false, it has answered.
func (c *conn) selectSeries(filters []filter, s SeriesSelection) ([]*seriesKey, bool) {
	o := c.srv.o.Cluster
	if o == nil || o.Series == nil || c.peer {
		keys, err := c.srv.series.selectKeys(filters, c.lend)
		if err != nil {
			c.failWith(err)
		}
		return keys, err == nil
	}
	if c.holdsBack() {
		c.Fail(errAlone)
		return nil, false
	}
	for _, f := range filters {
		s.Filters = append(s.Filters, SeriesFilter{f.label, f.set, f.not})
	}
	s.Keys, _ = json.Marshal(wireFilters(filters)) // texts alone
	var all SeriesOfAll
	var err error
	c.away(func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			select {
			case <-c.srv.stop:
				cancel()
			case <-ctx.Done():
			}
		}()
		var mu sync.Mutex
		all, err = o.Series(ctx, s, func(n int64) error {
			mu.Lock()
			defer mu.Unlock()
			return c.lend(n)
		})
	})
	if err == nil {
		err = c.lend(keyRoom * int64(len(all.Series)+len(all.Keys)))
	}
	switch {
	case err == nil:
		return c.srv.series.named(all), true
	case errors.Is(err, ErrNodeSilent):
		c.Fail("CLUSTERDOWN " + strings.Join(strings.Fields(plain(err)), " ")) // in one line
	default:
		c.failWith(err)
	}
	return nil, false
}

// ErrNodeSilent says that the answer of ClusterOptions.Series would not be whole.
var ErrNodeSilent = errors.New("a node of the cluster does not answer")

// wireFilter is a filter on its way: its texts may be no text that JSON can have.
type wireFilter struct {
	Label []byte
	Set   [][]byte
	Not   bool
}

func wireFilters(fs []filter) []wireFilter {
	list := make([]wireFilter, len(fs))
	for i, f := range fs {
		list[i] = wireFilter{Label: []byte(f.label), Not: f.not}
		for _, v := range f.set {
			list[i].Set = append(list[i].Set, []byte(v))
		}
	}
	return list
}

// SeriesKeys calls put for each key of this node that has the labels of a
// SeriesSelection whose Keys these are, in a form that is for ClusterOptions.Series.
func (s *Server) SeriesKeys(filters []byte, put func(text string) error) error {
	var list []wireFilter
	if err := json.Unmarshal(filters, &list); err != nil {
		return err
	}
	d := s.series
	if d == nil {
		return nil
	}
	fs := make([]filter, len(list))
	for i, w := range list {
		fs[i] = filter{label: string(w.Label), not: w.Not}
		for _, v := range w.Set {
			fs[i].set = append(fs[i].set, string(v))
		}
	}
	keys, err := d.selectKeys(fs, func(int64) error { return nil })
	if err != nil {
		return err
	}
	v := s.view()
	for _, k := range keys {
		if _, created := d.entry([]byte(k.name)); !created {
			continue
		}
		d.mu.RLock()
		_, empty := d.empty[k]
		d.mu.RUnlock()
		t := keyText{Name: []byte(k.name), Labels: k.labels, Implied: k.implied, Empty: empty}
		t.Here = v == nil || s.here(v, s.o.Cluster.KeySlot(t.Name))
		text, err := json.Marshal(t)
		if err == nil {
			err = put(string(text))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// named gives the series of all nodes the names that any of them has for it.
func (d *directory) named(all SeriesOfAll) []*seriesKey {
	texts := map[mcache.Fingerprint]keyText{}
	served := map[string]mcache.Fingerprint{} // the labels of names, as the nodes have it that serve them
	for _, s := range all.Keys {
		var t keyText
		if json.Unmarshal([]byte(s), &t) != nil || t.Empty && !t.Here {
			continue
		}
		print := d.cache.Fingerprint(t.Labels)
		if t.Here {
			served[string(t.Name)] = print
		}
		if other, ok := texts[print]; !ok || t.Here && !other.Here {
			texts[print] = t
		}
	}
	keys := make([]*seriesKey, 0, len(all.Series))
	for _, x := range all.Series {
		k := &seriesKey{labels: x.Labels, print: d.cache.Fingerprint(x.Labels), read: x.Read}
		t, ok := texts[k.print]
		if other, some := served[string(t.Name)]; ok && (!some || other == k.print) {
			k.name, k.implied = string(t.Name), t.Implied
		} else {
			k.name = selector(x.Labels)
			_, braces := parseSelector(k.name)
			k.implied = !braces
		}
		delete(texts, k.print)
		keys = append(keys, k)
	}
	for print, t := range texts {
		if t.Empty {
			keys = append(keys, &seriesKey{name: string(t.Name), labels: t.Labels, implied: t.Implied, print: print,
				read: func(_, _ int64, s *mcache.Snapshot) bool { return false }})
		}
	}
	slices.SortFunc(keys, func(a, b *seriesKey) int { return strings.Compare(a.name, b.name) })
	return keys
}

// allTimes makes a selection one of all times.
func (s SeriesSelection) allTimes() SeriesSelection {
	s.From, s.To = math.MinInt64, math.MaxInt64
	return s
}
