package ingest

import (
	"fmt"
	"slices"
	"strings"

	"mcached/ingest/resp"
	"mcached/mcache"
)

// query collects a series' rows, at most room of them and of the samples they
// are made from. COUNT is the caller's, except that the first samples are
// enough if they are all that will be used of them.
func (c *conn) query(k *seriesKey, a *rangeArgs, firstFew bool, room int) (r rows, ok bool) {
	from, to := a.from, a.to
	if a.agg != nil && a.agg.needsNeighbours() {
		from, to = -mcache.MaxTime, mcache.MaxTime
	}
	w := window{from: a.from, to: a.to}
	var points []point
	if c.busy = c.lend(c.srv.series.bytesOf(k)); c.busy != nil {
		return r, false
	}
	ok = true
	last, more := int64(-mcache.MaxTime), true
	see := func(t int64, v float64) bool {
		last = t
		switch {
		case !a.wants(t, v):
		case t < a.from:
			if v == v {
				w.before = &point{t, v}
			}
		case t > a.to:
			if v == v {
				w.after = &point{t, v}
			}
			return v != v
		case len(points) >= room:
			ok = false
			return false
		case len(points) == cap(points) && !c.roomFor(&points):
			ok = false
			return false
		default:
			points = append(points, point{t, v})
			more = !firstFew || a.agg != nil || a.count < 0 || len(points) < a.count
			return more
		}
		return true
	}
	c.srv.series.each(k, from, to, see)
	if a.latest && ok && more {
		if p, some := c.latest(k); some && p.t > last && p.t >= from && p.t <= to {
			see(p.t, p.v)
		}
	}
	switch {
	case !ok:
		return r, false
	case a.agg != nil:
		if c.busy = c.lend(a.agg.room(points, w, room)); c.busy != nil {
			return r, false
		}
		return a.agg.aggregate(points, w, room)
	}
	r.width = 1
	r.times, r.values = make([]int64, len(points)), make([]float64, len(points))
	for i, p := range points {
		r.times[i], r.values[i] = p.t, p.v
	}
	return r, true
}

func (c *conn) tooMany() {
	if c.busy != nil {
		c.refusedRoom(c.busy)
		c.busy = nil
		return
	}
	c.Fail(fmt.Sprintf("ERR TSDB: the query needs too many samples, the limit is %d, which no setting changes: use COUNT, a shorter range or fewer series", c.srv.o.MaxReplySamples))
}

func tsRange(c *conn, args [][]byte, o order) {
	k, ok := c.findSeries(args[1])
	if !ok {
		return
	}
	a, ok := c.parseRange(args[2:], ofOne)
	if !ok {
		return
	}
	r, ok := c.query(k, &a, o == oldestFirst, c.srv.o.MaxReplySamples)
	if !ok {
		c.tooMany()
		return
	}
	r.limit(a.count, o)
	c.rows(r)
}

func (c *conn) rows(r rows) {
	c.Array(r.len())
	for i, t := range r.times {
		c.Array(1 + r.width)
		c.Int(t)
		for _, v := range r.row(i) {
			c.sampleDouble(v)
		}
		c.spill()
	}
}

// sampleDouble is a double, or in RESP2 a simple string of it.
func (c *conn) sampleDouble(v float64) {
	if c.V3 {
		c.Double(v)
		return
	}
	c.B = append(c.B, '+')
	if v != v {
		c.B = append(c.B, "NaN"...)
	} else {
		c.B = resp.AppendDouble(c.B, v)
	}
	c.B = append(c.B, "\r\n"...)
}

func tsMRange(c *conn, args [][]byte, o order) {
	a, ok := c.parseRange(args[1:], ofMany)
	if !ok {
		return
	}
	wanted := SeriesSelection{From: a.from, To: a.to}
	if a.agg != nil && a.agg.needsNeighbours() {
		wanted = wanted.allTimes()
	}
	keys, ok := c.selectSeries(a.filters, wanted)
	if !ok {
		return
	}
	room := c.srv.o.MaxReplySamples
	all := make([]rows, len(keys))
	some := 0 // series with rows
	for i, k := range keys {
		if all[i], ok = c.query(k, &a, o == oldestFirst && a.groupBy == "", room); !ok {
			c.tooMany()
			return
		}
		if a.groupBy == "" {
			all[i].limit(a.count, o)
		}
		if all[i].len() > 0 {
			some++
		}
		if room -= all[i].len() * max(all[i].width, 1); room < 0 {
			c.tooMany()
			return
		}
	}
	if a.groupBy != "" {
		if !c.room(int64(c.srv.o.MaxReplySamples-room) * 2 * sampleRoom) {
			return
		}
		c.groups(&a, keys, all, o)
		return
	}
	if !a.noEmpty {
		some = len(keys)
	}
	c.series(some)
	for i, k := range keys {
		if a.noEmpty && all[i].len() == 0 {
			continue
		}
		c.oneOf(k.name, 3)
		c.labels(k.given(), a.withLabels, a.selected)
		if c.V3 {
			c.MapOf(1)
			c.BulkString("aggregators")
			if a.agg == nil {
				c.Array(0)
			} else {
				c.strings(a.agg.kinds)
			}
		}
		c.rows(all[i])
	}
}

// series begins the answer of a command that answers for several series.
func (c *conn) series(n int) {
	if c.V3 {
		c.MapOf(n)
	} else {
		c.Array(n)
	}
}

// oneOf begins one series of it, with n parts besides its name.
func (c *conn) oneOf(name string, n int) {
	if c.V3 {
		c.BulkString(name)
		c.Array(n)
	} else {
		// In RESP2 the aggregators are left out, and the name is in their place.
		c.Array(3)
		c.BulkString(name)
	}
}

func (c *conn) strings(s []string) {
	c.Array(len(s))
	for _, v := range s {
		c.BulkString(v)
	}
}

// labels writes all labels, those selected, or none.
func (c *conn) labels(labels []mcache.Label, all bool, chosen []string) {
	pair := func(name string) {
		if !c.V3 {
			c.Array(2)
		}
		c.BulkString(name)
	}
	head := func(n int) {
		if c.V3 {
			c.MapOf(n)
		} else {
			c.Array(n)
		}
	}
	switch {
	case all:
		head(len(labels))
		for _, l := range labels {
			pair(l.Name)
			c.BulkString(l.Value)
		}
	default:
		head(len(chosen))
		for _, name := range chosen {
			pair(name)
			if i := slices.IndexFunc(labels, func(l mcache.Label) bool { return l.Name == name }); i >= 0 {
				c.BulkString(labels[i].Value)
			} else {
				c.Null()
			}
		}
	}
}

// groups answers GROUPBY: one series for each value of the label.
func (c *conn) groups(a *rangeArgs, keys []*seriesKey, all []rows, o order) {
	type group struct {
		sources []string
		rows    []rows
	}
	byValue := map[string]*group{}
	var values []string
	for i, k := range keys {
		j := slices.IndexFunc(k.labels, func(l mcache.Label) bool { return l.Name == a.groupBy })
		if j < 0 {
			continue // a series without the label is in no group
		}
		v := k.labels[j].Value
		g := byValue[v]
		if g == nil {
			g = &group{}
			byValue[v] = g
			values = append(values, v)
		}
		g.sources = append(g.sources, k.name)
		g.rows = append(g.rows, all[i])
	}
	slices.Sort(values)
	c.series(len(values))
	for _, v := range values {
		g := byValue[v]
		labels := []mcache.Label{{Name: a.groupBy, Value: v}}
		c.oneOf(a.groupBy+"="+v, 4)
		if c.V3 {
			c.labels(labels, a.withLabels, a.selected)
			c.MapOf(1)
			c.BulkString("reducers")
			c.strings([]string{a.reducer})
			c.MapOf(1)
			c.BulkString("sources")
			c.strings(g.sources)
		} else {
			labels = append(labels, mcache.Label{Name: "__reducer__", Value: a.reducer}, mcache.Label{Name: "__source__", Value: strings.Join(g.sources, ",")})
			c.labels(labels, a.withLabels, a.selected)
		}
		r := reduce(a.reducer, g.rows)
		r.limit(a.count, o)
		c.rows(r)
	}
}

// latestSample answers the sample of the bucket that is open of a series that is
// compacted from another, or else the youngest sample.
func (c *conn) latestSample(k *seriesKey) {
	if p, ok := c.latest(k); ok {
		c.sample(p.t, p.v)
		return
	}
	c.lastSample(k)
}

// lastSample answers the youngest sample of a series.
func (c *conn) lastSample(k *seriesKey) {
	t, v, ok := c.srv.series.last(k, c.nowMs())
	if !ok {
		c.Array(0)
		return
	}
	c.sample(t, v)
}

func (c *conn) sample(t int64, v float64) {
	c.Array(2)
	c.Int(t)
	c.sampleDouble(v)
}

func tsGet(c *conn, args [][]byte) {
	if len(args) > 2 && (len(args) > 3 || !resp.EqualFold(args[2], "latest")) {
		c.wrongArity("ts.get")
		return
	}
	switch k, ok := c.findSeries(args[1]); {
	case ok && len(args) > 2:
		c.latestSample(k)
	case ok:
		c.lastSample(k)
	}
}

func tsMGet(c *conn, args [][]byte) {
	// The options are some of TS.MRANGE's.
	a, ok := c.parseRange(append([][]byte{[]byte("-"), []byte("+")}, args[1:]...), ofMany)
	if !ok {
		return
	}
	keys, ok := c.selectSeries(a.filters, SeriesSelection{LastOnly: true}.allTimes())
	if !ok {
		return
	}
	c.series(len(keys))
	for _, k := range keys {
		c.oneOf(k.name, 2)
		c.labels(k.given(), a.withLabels, a.selected)
		if a.latest {
			c.latestSample(k)
		} else {
			c.lastSample(k)
		}
		c.spill()
	}
}

func tsQueryIndex(c *conn, args [][]byte) {
	fs, problem := parseFilters(args[1:])
	if problem != "" {
		c.Fail("ERR TSDB: " + problem)
		return
	}
	keys, ok := c.selectSeries(fs, SeriesSelection{LabelsOnly: true}.allTimes())
	if !ok {
		return
	}
	c.SetOf(len(keys))
	for _, k := range keys {
		c.BulkString(k.name)
		c.spill()
	}
}

func tsInfo(c *conn, args [][]byte) {
	k, ok := c.findSeries(args[1])
	if !ok {
		return
	}
	if len(args) > 2 && (len(args) > 3 || !resp.EqualFold(args[2], "debug")) {
		c.wrongArity("ts.info")
		return
	}
	if !c.room(2 * c.srv.series.bytesOf(k)) {
		return
	}
	var n, first, last int64
	c.srv.series.each(k, -mcache.MaxTime, mcache.MaxTime, func(t int64, _ float64) bool {
		if n == 0 {
			first = t
		}
		last = t
		n++
		return true
	})
	k = k.lock()
	o := k.seriesOptions
	id, found := k.id, k.found
	k.mu.Unlock()
	bytes := 0
	if found {
		var s mcache.Snapshot
		if c.srv.o.Metrics.Snapshot(id, -mcache.MaxTime, mcache.MaxTime, &s) {
			bytes = s.Bytes()
		}
	}
	bytes += keyBytes + len(k.name)
	for _, l := range k.labels {
		bytes += len(l.Name) + len(l.Value)
	}
	if o.chunkBytes == 0 {
		o.chunkBytes = defaultChunkBytes
	}
	c.MapOf(14)
	number := func(name string, v int64) { c.Simple(name); c.Int(v) }
	number("totalSamples", n)
	number("memoryUsage", int64(bytes))
	number("firstTimestamp", first)
	number("lastTimestamp", last)
	number("retentionTime", o.retentionMs)
	number("chunkCount", min(n, 1))
	number("chunkSize", o.chunkBytes)
	c.Simple("chunkType")
	if o.uncompressed {
		c.Simple("uncompressed")
	} else {
		c.Simple("compressed")
	}
	c.Simple("duplicatePolicy")
	if o.policy == policyNone {
		c.Null()
	} else {
		c.Simple(policyNames[o.policy])
	}
	c.Simple("labels")
	c.labels(k.given(), true, nil)
	c.rules(k)
	number("ignoreMaxTimeDiff", o.ignoreMs)
	c.Simple("ignoreMaxValDiff")
	c.sampleDouble(o.ignoreValue)
}
