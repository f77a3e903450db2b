package ingest

import (
	"encoding/binary"
	"fmt"
	"math"

	"mcached/ingest/admission"
	"mcached/mcache"
)

func metricCommands() []command {
	one := [3]int{1, 1, 1}
	second := [3]int{2, 2, 1} // behind the bucket
	create := "[RETENTION ms] [ENCODING COMPRESSED | UNCOMPRESSED] [CHUNK_SIZE bytes] [DUPLICATE_POLICY policy] [IGNORE ms difference] [LABELS label value ...]"
	query := "[LATEST] [FILTER_BY_TS ts ...] [FILTER_BY_VALUE min max] "
	aggregate := "[COUNT count] [[ALIGN start | end | ts] AGGREGATION aggregator[,aggregator ...] ms [BUCKETTIMESTAMP - | ~ | +] [EMPTY]]"
	multi := query + "[WITHLABELS | SELECTED_LABELS label ...] " + aggregate + " FILTER filter [filter ...] [GROUPBY label REDUCE reducer] [EXCLUDEEMPTY]"
	return []command{
		{name: "ts.create", arity: -2, group: groupSeries, syntax: "key " + create, summary: "Creates a time series.", flags: write | denyoom, keys: one, run: tsCreate},
		{name: "ts.alter", arity: -2, group: groupSeries, syntax: "key " + create, summary: "Changes the options of a time series.", flags: write | denyoom, keys: one, run: tsAlter},
		{name: "ts.add", arity: -4, group: groupSeries, syntax: "key ts | * value " + create + " [ON_DUPLICATE policy]", summary: "Appends a sample, creating the series if need be.", flags: write | denyoom, keys: one, run: tsAdd},
		{name: "ts.madd", arity: -4, group: groupSeries, syntax: "key ts value [key ts value ...]", summary: "Appends samples to series that exist.", flags: write | denyoom, keys: [3]int{1, -1, 3}, run: tsMAdd},
		{name: "ts.incrby", arity: -3, group: groupSeries, syntax: "key addend [TIMESTAMP ts] " + create, summary: "Appends the last value plus the addend.", flags: write | denyoom, keys: one, run: func(c *conn, args [][]byte) { tsIncrBy(c, args, 1) }},
		{name: "ts.decrby", arity: -3, group: groupSeries, syntax: "key subtrahend [TIMESTAMP ts] " + create, summary: "Appends the last value less the subtrahend.", flags: write | denyoom, keys: one, run: func(c *conn, args [][]byte) { tsIncrBy(c, args, -1) }},
		{name: "ts.get", arity: -2, group: groupSeries, syntax: "key [LATEST]", summary: "Returns the last sample.", flags: readonly, keys: one, run: tsGet},
		{name: "ts.mget", arity: -3, group: groupSeries, syntax: "[LATEST] [WITHLABELS | SELECTED_LABELS label ...] FILTER filter [filter ...]", summary: "Returns the last samples of the series that match.", flags: readonly, run: tsMGet},
		{name: "ts.range", arity: -4, group: groupSeries, syntax: "key from to " + query + aggregate, summary: "Returns the samples of a range.", flags: readonly, keys: one, run: func(c *conn, args [][]byte) { tsRange(c, args, oldestFirst) }},
		{name: "ts.revrange", arity: -4, group: groupSeries, syntax: "key from to " + query + aggregate, summary: "Returns the samples of a range, the youngest first.", flags: readonly, keys: one, run: func(c *conn, args [][]byte) { tsRange(c, args, youngestFirst) }},
		{name: "ts.mrange", arity: -5, group: groupSeries, syntax: "from to " + multi, summary: "Returns the samples of a range of the series that match.", flags: readonly, run: func(c *conn, args [][]byte) { tsMRange(c, args, oldestFirst) }},
		{name: "ts.mrevrange", arity: -5, group: groupSeries, syntax: "from to " + multi, summary: "Returns the samples of a range of the series that match, the youngest first.", flags: readonly, run: func(c *conn, args [][]byte) { tsMRange(c, args, youngestFirst) }},
		{name: "ts.queryindex", arity: -2, group: groupSeries, syntax: "filter [filter ...]", summary: "Returns the keys of the series that match.", flags: readonly, run: tsQueryIndex},
		{name: "ts.info", arity: -2, group: groupSeries, syntax: "key [DEBUG]", summary: "Returns what is known of a series.", flags: readonly, keys: one, run: tsInfo},
		{name: "ts.createrule", arity: -6, group: groupSeries, syntax: "source destination AGGREGATION aggregator ms [align]", summary: "Makes a series of what an aggregator says of the buckets of another.", flags: write | denyoom, keys: [3]int{1, 2, 1}, run: tsCreateRule},
		{name: "ts.deleterule", arity: 3, group: groupSeries, syntax: "source destination", summary: "Ends what TS.CREATERULE began.", flags: write, keys: [3]int{1, 2, 1}, run: tsDeleteRule},
		{name: "ts.del", arity: 4, group: groupSeries, syntax: "key from to", summary: "Removes the samples of a range.", flags: write, keys: one, run: tsDel},

		{name: "mc.insert", arity: 5, group: groupMetrics, syntax: "bucket key offset values", summary: "Writes values of 8 bytes to consecutive offsets.", flags: write | denyoom, keys: second, run: mcInsert},
		{name: "mc.hpts", arity: 4, group: groupMetrics, syntax: "bucket key pairs", summary: "Writes pairs of a time and a value, 16 bytes each.", flags: write | denyoom, keys: second, run: mcHPTS},
		{name: "mc.get", arity: 3, group: groupMetrics, syntax: "bucket key", summary: "Returns all runs of a key.", flags: readonly, keys: second, run: func(c *conn, args [][]byte) { c.readKey(args, math.MinInt64, math.MaxInt64) }},
		{name: "mc.range", arity: 5, group: groupMetrics, syntax: "bucket key from to", summary: "Returns the runs of a key between two offsets, both included.", flags: readonly, keys: second, run: mcRange},
		{name: "mc.take", arity: 3, group: groupMetrics, syntax: "bucket key", summary: "Returns all runs of a key and removes it.", flags: write, keys: second, run: mcTake},
		{name: "mc.pop", arity: 1, group: groupMetrics, summary: "Takes the key that would be evicted next.", flags: write, run: mcPop},
		{name: "mc.age", arity: 2, group: groupMetrics, syntax: "bucket", summary: "Advances the generations of a bucket.", flags: write | fast, run: func(c *conn, args [][]byte) { c.srv.o.Metrics.Age(string(args[1])); c.OK() }},
		{name: "mc.stats", arity: -1, group: groupMetrics, syntax: "[bucket]", summary: "Returns the figures of the metric cache or of a bucket.", flags: readonly, run: mcStats},
		{name: "mc.buckets", arity: 1, group: groupMetrics, summary: "Returns the names of the buckets.", flags: readonly, run: func(c *conn, _ [][]byte) { c.strings(c.srv.o.Metrics.Buckets()) }},
		{name: "mc.drop", arity: 2, group: groupMetrics, syntax: "bucket", summary: "Removes a bucket with all it holds.", flags: write, run: func(c *conn, args [][]byte) { c.Flag(c.srv.o.Metrics.RemoveBucket(string(args[1]))) }},
	}
}

// The MC commands are the API of the metric cache as it is: offsets in slots,
// values as strings of 8 or 16 bytes a point, little-endian.

func mcInsert(c *conn, args [][]byte) {
	offset, ok := c.integerArg(args[3])
	if !ok {
		return
	}
	c.done(c.srv.o.Metrics.Insert(string(args[1]), args[2], offset, args[4]))
}

func mcHPTS(c *conn, args [][]byte) {
	c.done(c.srv.o.Metrics.InsertHPTS(string(args[1]), args[2], args[3]))
}

func (c *conn) done(err error) {
	if err != nil {
		c.failWith(err)
	} else {
		c.OK()
	}
}

func mcRange(c *conn, args [][]byte) {
	from, ok := c.integerArg(args[3])
	if !ok {
		return
	}
	to, ok := c.integerArg(args[4])
	if !ok {
		return
	}
	c.readKey(args, from, to)
}

// readKey answers what a key holds. It has room for that first, encoded as it is.
func (c *conn) readKey(args [][]byte, from, to int64) {
	m, bucket := c.srv.o.Metrics, string(args[1])
	if !c.room(m.KeyBytes(bucket, args[2])) {
		return
	}
	var snap mcache.Snapshot
	width, err := m.ReadKey(bucket, args[2], from, to, &snap)
	c.snapshot(&snap, width, err)
}

func mcTake(c *conn, args [][]byte) {
	m, bucket := c.srv.o.Metrics, string(args[1])
	if !c.room(m.KeyBytes(bucket, args[2])) {
		return
	}
	var snap mcache.Snapshot
	width, err := m.TakeKey(bucket, args[2], &snap)
	c.snapshot(&snap, width, err)
}

// snapshot answers an array of pairs: an offset and the values from there on.
// They are decoded as they are written, the first time to be counted.
func (c *conn) snapshot(snap *mcache.Snapshot, width int, err error) {
	if err != nil {
		c.failWith(err)
		return
	}
	if width == 0 {
		c.Array(0)
		return
	}
	n := 0
	for r := (runs{it: snap.Iterator(), width: width}); ; n++ {
		if _, points := r.run(); points == 0 {
			break
		}
	}
	c.Array(n)
	it, ahead := snap.Iterator(), runs{it: snap.Iterator(), width: width}
	for range n {
		first, points := ahead.run()
		c.Array(2)
		c.Int(first)
		c.BulkHead(points * width)
		for range points {
			for it.Next() && it.OnRecord() { // which raw keys have none of
			}
			x := it.At()
			if width == pairBytes {
				c.B = binary.LittleEndian.AppendUint64(c.B, uint64(x.T))
			}
			c.B = binary.LittleEndian.AppendUint64(c.B, x.V)
			c.spill()
		}
		c.B = append(c.B, "\r\n"...)
		if c.spill(); c.quit {
			return
		}
	}
}

// pairBytes is a point of a bucket of pairs.
const pairBytes = 16

// runs finds the points of a key that are answered together: those of
// consecutive offsets, or, of pairs, all.
type runs struct {
	it    mcache.Iterator
	width int
	on    bool // it stands on a point that is in no run yet
}

// run is the next run: its first offset and how many points it has, 0 at the end.
func (r *runs) run() (first int64, n int) {
	if !r.on && !r.advance() {
		return 0, 0
	}
	first = r.it.At().T
	for n = 1; r.advance(); n++ {
		if r.width != pairBytes && r.it.At().T != first+int64(n) {
			break
		}
	}
	return first, n
}

func (r *runs) advance() bool {
	for r.on = r.it.Next(); r.on && r.it.OnRecord(); r.on = r.it.Next() {
	}
	return r.on
}

// popPart is the part of what reads may hold that MC.POP takes for its key, of
// which it does not know beforehand which it will be.
const popPart = 8

// mcPop answers bucket, key and runs; the key of a labelled series is null.
func mcPop(c *conn, _ [][]byte) {
	if !c.room(c.srv.o.Admission.Limit(admission.Read) / popPart) {
		return
	}
	var snap mcache.Snapshot
	bucket, key, width := c.srv.o.Metrics.PopKey(&snap)
	if width == 0 {
		c.NullArray()
		return
	}
	c.Array(3)
	c.BulkString(bucket)
	if key == nil {
		c.Null()
	} else {
		c.Bulk(key)
	}
	c.snapshot(&snap, width, nil)
}

func mcStats(c *conn, args [][]byte) {
	if len(args) > 2 {
		c.wrongArity("mc.stats")
		return
	}
	st := c.srv.o.Metrics.Stats()
	type row struct {
		name  string
		value int64
	}
	list := func(rows []row) {
		c.MapOf(len(rows))
		for _, r := range rows {
			c.BulkString(r.name)
			c.Int(r.value)
		}
	}
	if len(args) == 1 {
		list([]row{
			{"series", int64(st.Series)}, {"points", int64(st.Points)}, {"inserted", int64(st.Inserted)},
			{"overwritten", int64(st.Overwritten)}, {"mended", int64(st.Mended)}, {"evicted", int64(st.Evicted)},
			{"taken", int64(st.Taken)}, {"popped", int64(st.Popped)}, {"removed", int64(st.Removed)},
			{"reclaimed", int64(st.Reclaimed)}, {"evictions", int64(st.Evictions)},
			{"overflow.points", int64(st.BlobPoints)}, {"overflow.bytes", st.Blobs.LiveBytes},
			{"allocated.bytes", st.AllocatedBytes}, {"max.bytes", st.MaxBytes}, {"index.bytes", st.IndexBytes},
		})
		return
	}
	for _, b := range st.Buckets {
		if b.Name != string(args[1]) {
			continue
		}
		rows := []row{{"width.bytes", int64(b.Width)}, {"age", int64(b.Age)}, {"inserts", int64(b.Inserts)}, {"evictions", int64(b.Evictions)}}
		if n := len(b.Coverage); n > 0 {
			rows = append(rows, row{"covered.from", b.Coverage[n-1].From}, row{"covered.gaps", int64(n - 1)})
		}
		for i, g := range b.Generations {
			rows = append(rows,
				row{fmt.Sprintf("gen%d.keys", i+1), int64(g.Keys)},
				row{fmt.Sprintf("gen%d.points", i+1), int64(g.Points)},
				row{fmt.Sprintf("gen%d.bytes", i+1), g.Bytes})
		}
		list(rows)
		return
	}
	c.Fail("ERR no such bucket")
}
