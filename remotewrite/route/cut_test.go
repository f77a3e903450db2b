package route

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
	"mcached/remotewrite/wire"
	"mcached/remotewrite/writetest"
)

// cutFor is the flight of a request that is cut by t, as far as assign, for nodes
// that take packed frames or do not.
func cutFor(t testing.TB, tab *table, p wire.Part, packed bool) (*flight, bool) {
	r := newRouter(t, Options{Cluster: &testCluster{table: tab}})
	f := r.flights.Get().(*flight)
	f.refs = 1
	if !f.cut.scan(p) {
		return f, false
	}
	f.part, f.table, f.boxes, f.need = p, tab, r.outboxes(tab), 1
	for _, o := range f.boxes.by {
		o.packs.Store(packed)
	}
	f.assign()
	return f, true
}

// frameBodies are what each node gets, that of this node made of what is not skipped.
func frameBodies(f *flight) [][]byte {
	bodies := make([][]byte, f.table.Nodes())
	for i, fr := range f.frames {
		if fr != nil {
			bodies[i] = fr.body
		}
	}
	if self := f.table.Self(); self >= 0 && len(f.own.items) > 0 {
		b := slices.Clone(f.cut.head)
		series := 0
		for k, it := range f.cut.items {
			if it.metadata {
				if slices.Contains(f.own.items, int32(k)) {
					b = append(b, f.cut.body[it.from:it.to]...)
				}
				continue
			}
			if !f.skip[series] {
				b = append(b, f.cut.body[it.from:it.to]...)
			}
			series++
		}
		bodies[self] = b
	}
	return bodies
}

// slotOf is the slot of a label set by the definition.
func slotOf(bucket string, ls []mcache.Label) uint16 {
	sum := testHash.Bucket(bucket)
	for _, l := range ls {
		if l.Value != "" {
			sum += testHash.Pair(l.Name, l.Value)
		}
	}
	return testHash.Slot(sum)
}

// What nodes get is the request: Prometheus' own decoders find in the part of
// each exactly the series that it owns, in their order, with all they hold.
func FuzzCut(f *testing.F) {
	rng := rand.New(rand.NewPCG(7, 7))
	for _, v := range []wire.Protocol{wire.V1, wire.V2} {
		for range 4 {
			f.Add(byte(v), writetest.Encode(f, v, randomSeries(rng, 40)...))
		}
		f.Add(byte(v), full(f, v))
	}
	f.Add(byte(wire.V2), oddV2(f))
	tab := newTable(3, 1, 2)
	f.Fuzz(func(t *testing.T, v byte, body []byte) {
		p := wire.Part{Protocol: wire.V1 + wire.Protocol(v)%2, Bucket: "b", Body: body, MaxSamples: 1_000_000}
		fl, ok := cutFor(t, tab, p, false)
		if packed, _ := cutFor(t, tab, p, true); ok {
			samePacked(t, fl, packed)
			samePrinted(t, fl, p)
		}
		whole, err := decode(p.Protocol, body)
		if err != nil {
			return // it may be cut, and is rejected by whoever gets what is wrong
		}
		if !ok {
			if !oddFields(p.Protocol, body) {
				t.Fatalf("a request that Prometheus takes is not cut: %x", body)
			}
			return
		}
		want := make([][]series, 3)
		meta := make([][]prompb.MetricMetadata, 3)
		for _, s := range whole.series {
			for _, o := range tab.Owners(slotOf("b", s.labels)) {
				want[o] = append(want[o], s)
			}
		}
		for _, m := range whole.metadata {
			for _, o := range tab.Owners(slotOf("b", []mcache.Label{{Name: wire.MetricName, Value: m.MetricFamilyName}})) {
				meta[o] = append(meta[o], m)
			}
		}
		for node, b := range frameBodies(fl) {
			got, err := decode(p.Protocol, b)
			if err != nil {
				t.Fatalf("node %d gets what is no request: %v", node, err)
			}
			if !reflect.DeepEqual(got.series, want[node]) || !reflect.DeepEqual(got.metadata, meta[node]) {
				t.Fatalf("node %d gets\n%v %v\nwant\n%v %v", node, got.series, got.metadata, want[node], meta[node])
			}
		}
	})
}

// seriesPrint is the print of a label set by the definition.
func seriesPrint(bucket string, ls []mcache.Label) (p wire.Print) {
	p.A, p.B = testPrints{testHash}.BucketPrint(bucket)
	for _, l := range ls {
		if l.Value != "" {
			x, y, kind := testPrints{testHash}.Name(l.Name)
			_, a, b := testPrints{testHash}.Pair(x, y, kind, l.Value)
			p.A, p.B = p.A+a, p.B+b
		}
	}
	return p
}

// samePrinted holds a request whose nodes know all series to be cut as one that is plain,
// but that usual series are named by their prints and keep all but their labels.
func samePrinted(t *testing.T, plain *flight, p wire.Part) (prints int) {
	t.Helper()
	r := newRouter(t, Options{Cluster: &testCluster{table: plain.table}})
	f := r.flights.Get().(*flight)
	for range 2 {
		f.refs = 1
		f.cut.scan(p)
		f.part, f.table, f.boxes, f.need = p, plain.table, r.outboxes(plain.table), 1
		for _, o := range f.boxes.by {
			o.knows.takes.Store(true)
		}
		f.assign()
	}
	whole, err := decode(p.Protocol, p.Body)
	place := make(map[int32]int) // of series
	for k := range f.cut.items {
		if !f.cut.items[k].metadata {
			place[int32(k)] = len(place)
		}
	}
	n := plain.table.Nodes()
	for node := range n {
		var items []int32
		if fr := f.frames[node]; fr != nil {
			items = append(items, fr.items...)
			series := 0
			for _, k := range fr.items {
				if f.cut.items[k].metadata {
					continue
				}
				if got := wire.PrintAt(fr.prints, series); got != f.cut.teaching(k) {
					t.Fatalf("node %d learns %v of item %d", node, got, k)
				}
				series++
			}
		}
		if fr := f.frames[n+node]; fr != nil {
			i := 0
			for _, k := range fr.items {
				got, from, to := wire.PrintedAt(fr.body, i)
				i = to
				if err != nil {
					continue // what it holds is for its receiver to judge
				}
				want := whole.series[place[k]]
				again := slices.Clone(f.cut.head)
				again = append(again, wire.TagV1Series)
				if p.Protocol == wire.V2 {
					again[len(again)-1] = wire.TagV2Series
				}
				again = append(binary.AppendUvarint(again, uint64(to-from)), fr.body[from:to]...)
				bare, err := decode(p.Protocol, again)
				// In protocol 2.0 rest has references, metadata and symbols beside samples.
				same := err == nil && strings.Contains(want.rest, strings.TrimSuffix(bare.series[0].rest, "*\x00"))
				if !same || got != seriesPrint(p.Bucket, want.labels) || len(bare.series[0].labels) > 0 || p.Protocol == wire.V1 && bare.series[0].rest != want.rest {
					t.Fatalf("node %d gets of %v: %v, %v, %v", node, want, got, bare, err)
				}
				prints++
			}
			if i != len(fr.body) {
				t.Fatalf("node %d gets %d bytes more", node, len(fr.body)-i)
			}
			items = append(items, fr.items...)
		}
		slices.Sort(items)
		if fr := plain.frames[node]; fr == nil && len(items) > 0 || fr != nil && !slices.Equal(items, fr.items) {
			t.Fatalf("node %d gets items %v", node, items)
		}
	}
	return prints
}

// Series that were sent before go by their prints, but for what is unusual about them.
func TestUsualSeriesArePrinted(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 9))
	for _, v := range []wire.Protocol{wire.V1, wire.V2} {
		p := wire.Part{Protocol: v, Bucket: "b", Body: writetest.Encode(t, v, benchSeries(200)...), MaxSamples: 1_000_000}
		plain, ok := cutFor(t, newTable(3, 1, 2), p, false)
		if !ok {
			t.Fatal("it is not cut")
		}
		others := 0
		for _, fr := range plain.frames {
			if fr != nil {
				others += len(fr.items)
			}
		}
		if n := samePrinted(t, plain, p); n != others || n == 0 {
			t.Errorf("protocol %v: %d of %d are printed", v, n, others)
		}
		for range 20 {
			p.Body = writetest.Encode(t, v, randomSeries(rng, 40)...)
			if plain, ok := cutFor(t, newTable(3, 1, 2), p, false); ok {
				samePrinted(t, plain, p)
			}
		}
	}
}

// samePacked holds packed frames to be, byte by byte, the plain ones.
func samePacked(t *testing.T, plain, packed *flight) {
	t.Helper()
	for node, fr := range plain.frames {
		other := packed.frames[node]
		if (fr == nil) != (other == nil) {
			t.Fatalf("node %d gets a frame or does not, as it is packed or not", node)
		}
		if fr == nil {
			continue
		}
		if other.packed != (plain.part.Protocol == wire.V1) {
			t.Fatalf("node %d: packed is %v", node, other.packed)
		}
		other.unpack()
		if !bytes.Equal(fr.body, other.body) || !slices.Equal(fr.items, other.items) || fr.plain != other.plain {
			t.Fatalf("node %d gets\n%q\npacked, and\n%q\nplain", node, other.body, fr.body)
		}
	}
}

// series is what a request says of one, whatever the protocol.
type series struct {
	labels []mcache.Label
	rest   string // all but the labels
}

type request struct {
	series   []series
	metadata []prompb.MetricMetadata
}

func decode(p wire.Protocol, b []byte) (r request, err error) {
	if p == wire.V1 {
		var m prompb.WriteRequest
		if err := m.Unmarshal(b); err != nil {
			return r, err
		}
		for _, ts := range m.Timeseries {
			rest, err := (&prompb.TimeSeries{Samples: ts.Samples, Exemplars: ts.Exemplars, Histograms: ts.Histograms}).Marshal()
			if err != nil {
				return r, err
			}
			s := series{rest: string(rest)}
			for _, l := range ts.Labels {
				s.labels = append(s.labels, mcache.Label{Name: l.Name, Value: l.Value})
			}
			r.series = append(r.series, s)
		}
		r.metadata = m.Metadata
		return r, nil
	}
	var m writev2.Request
	if err := m.Unmarshal(b); err != nil {
		return r, err
	}
	for _, ts := range m.Timeseries {
		rest, err := ts.Marshal()
		if err != nil {
			return r, err
		}
		s := series{rest: string(rest)}
		for i := 0; i+1 < len(ts.LabelsRefs); i += 2 {
			if n, v := ts.LabelsRefs[i], ts.LabelsRefs[i+1]; int(max(n, v)) < len(m.Symbols) {
				s.labels = append(s.labels, mcache.Label{Name: m.Symbols[n], Value: m.Symbols[v]})
				s.rest += m.Symbols[n] + m.Symbols[v]
			}
		}
		r.series = append(r.series, s)
	}
	return r, nil
}

// oddFields reports whether the request holds fields of the other protocol,
// or known ones of another type, which the receiver rejects.
func oddFields(p wire.Protocol, b []byte) bool {
	for i := 0; i < len(b); {
		t, at := wire.Tag(b, i)
		if at < 0 {
			return true
		}
		if p == wire.V1 && (t>>3 <= 5 && t != wire.TagV1Series && t != wire.TagV1Metadata) ||
			p == wire.V2 && (t>>3 <= 5 && t != wire.TagV2Symbol && t != wire.TagV2Series) {
			return true
		}
		if i = wire.Skip(b, t, at); i < 0 {
			return true
		}
	}
	return false
}

// randomSeries share most of their labels, as those of a scrape do.
func randomSeries(rng *rand.Rand, n int) []writetest.Series {
	var all []writetest.Series
	for range n {
		ls := writetest.Named(fmt.Sprintf("m%d", rng.IntN(5)))
		for _, name := range []string{"a", "cluster", "instance", "job", "le", "z"} {
			if rng.IntN(4) > 0 {
				ls = append(ls, mcache.Label{Name: name, Value: []string{"", "x", "a longer value", fmt.Sprint(rng.IntN(100))}[rng.IntN(4)]})
			}
		}
		s := writetest.Series{Labels: ls}
		for i := range 1 + rng.IntN(3)*rng.IntN(2) {
			s.Samples = append(s.Samples, writetest.Sample(float64(15*i), float64(rng.IntN(1000))))
		}
		all = append(all, s)
	}
	return all
}

// full is a request with everything that a protocol knows.
func full(t testing.TB, p wire.Protocol) []byte {
	at := writetest.Now.UnixMilli()
	ls := writetest.Named("full", "a", "b")
	if p == wire.V1 {
		r := writetest.RequestV1(writetest.Series{Labels: ls, Samples: []mcache.Sample{writetest.Sample(0, 1)}}, writetest.Series{Labels: ls})
		r.Timeseries[0].Exemplars = []prompb.Exemplar{{Labels: []prompb.Label{{Name: "trace", Value: "1"}}, Value: 2, Timestamp: at}}
		r.Timeseries[0].Histograms = []prompb.Histogram{{Count: &prompb.Histogram_CountInt{CountInt: 0}, Timestamp: at + 1}}
		r.Metadata = []prompb.MetricMetadata{{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "full", Help: "all of it"}, {MetricFamilyName: "other"}}
		return writetest.Marshal(t, r)
	}
	r := writetest.RequestV2(writetest.Series{Labels: ls, Samples: []mcache.Sample{writetest.Sample(0, 1)}}, writetest.Series{Labels: ls})
	r.Timeseries[0].Exemplars = []writev2.Exemplar{{LabelsRefs: []uint32{1, 2}, Value: 2, Timestamp: at}}
	r.Timeseries[0].Histograms = []writev2.Histogram{{Count: &writev2.Histogram_CountInt{CountInt: 0}, Timestamp: at + 1}}
	r.Timeseries[0].Metadata = writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: 2}
	r.Timeseries[0].Samples[0].StartTimestamp = at - 1000
	return writetest.Marshal(t, r)
}

// oddV2 is what protobuf allows and no sender does: series before symbols,
// symbols apart, references that are not packed, or in several lists.
func oddV2(t testing.TB) []byte {
	var b []byte
	field := func(dst []byte, tag byte, s []byte) []byte { return append(append(dst, tag, byte(len(s))), s...) }
	sample := []byte{wire.TagSampleValue, 1, 2, 3, 4, 5, 6, 7, 8, wire.TagSampleTime, 5}
	one := field([]byte{wire.TagV2SeriesRef, 1, wire.TagV2SeriesRef, 2}, wire.TagV2SeriesSample, sample)
	two := field(field(field(nil, wire.TagV2SeriesRefs, []byte{1}), wire.TagV2SeriesRefs, []byte{2, 3, 4}), wire.TagV2SeriesSample, sample)
	bad := field(field(nil, wire.TagV2SeriesRefs, []byte{1, 99}), wire.TagV2SeriesSample, sample)
	b = field(b, wire.TagV2Series, one)
	b = field(b, wire.TagV2Symbol, nil)
	b = field(b, wire.TagV2Symbol, []byte("__name__"))
	b = field(b, wire.TagV2Series, two)
	b = field(b, wire.TagV2Symbol, []byte("up"))
	b = field(b, wire.TagV2Series, bad)
	b = field(b, wire.TagV2Series, field(field(nil, wire.TagV2SeriesRefs, []byte{3, 4, 1, 2}), wire.TagV2SeriesSample, sample))
	b = field(b, wire.TagV2Symbol, []byte("job"))
	b = field(b, wire.TagV2Symbol, []byte("x"))
	if _, err := decode(wire.V2, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// A series has the slot of its labels, in whatever order, protocol or place in
// a request it comes; those of a histogram have one in common.
func TestSlotIsThatOfTheLabels(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	writetest.Both(t, func(t *testing.T, p wire.Protocol) {
		for range 50 {
			all := randomSeries(rng, 60)
			for i := range all {
				rng.Shuffle(len(all[i].Labels), func(a, b int) { ls := all[i].Labels; ls[a], ls[b] = ls[b], ls[a] })
			}
			c := cutter{hash: testHash, maxSeries: 100, maxSymbols: 1000}
			if !c.scan(wire.Part{Protocol: p, Bucket: "x", Body: writetest.Encode(t, p, all...), MaxSamples: 1000}) {
				t.Fatal("not cut")
			}
			samples := 0
			for i, s := range all {
				samples += len(s.Samples)
				if got, want := c.items[i].slot, slotOf("x", s.Labels); got != want {
					t.Fatalf("series %d, %s, has slot %d, want %d", i, writetest.LabelText(s.Labels), got, want)
				}
			}
			if c.sent.Samples != samples || c.series != len(all) {
				t.Fatalf("%d samples of %d series counted, want %d of %d", c.sent.Samples, c.series, samples, len(all))
			}
		}
	})
}

// However labels are written, a series is what it would be alone: what it has in common with
// the one before, and what it was told by, makes no difference.
func TestSeriesAreCutAsIfAlone(t *testing.T) {
	field := func(dst []byte, tag byte, b ...byte) []byte {
		return append(binary.AppendUvarint(append(dst, tag), uint64(len(b))), b...)
	}
	long := func(n int) string { return strings.Repeat("long", n/4) }
	sample := []byte{wire.TagSampleValue, 1, 2, 3, 4, 5, 6, 7, 8, wire.TagSampleTime, 5}
	quick := 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 7))
		some := func(texts ...string) []byte { return []byte(texts[rng.IntN(len(texts))]) }
		var labels [][]byte // of the series before
		var body []byte
		var alone [][]byte
		var whole []bool
		usual := true // as long as no label without a value has come
		many := seed%30 == 0
		for range 40 {
			if len(labels) == 0 || rng.IntN(8) == 0 {
				labels = labels[:0]
				n := 1 + rng.IntN(5)
				if many {
					n += wire.MaxPackedLabels - 2
				}
				for range n {
					labels = append(labels, field(field(nil, wire.TagLabelName, some("ab", "cd", "le", "x")...), wire.TagLabelValue, some("1", "22", "longer than it was")...))
				}
			}
			at := len(labels) - 1 - rng.IntN(len(labels))*rng.IntN(2)*rng.IntN(2)
			name, value := some("ab", "cd"), some("1", "22", "3", "longer than it was")
			if seed%8 == 0 && rng.IntN(4) == 0 { // lengths of two bytes and of three
				value = some(long(124), long(128), long(300), long(1<<14-200), long(1<<14))
			}
			how := rng.IntN(20)
			if seed%3 > 0 {
				how = max(how, 2)
			}
			switch l := field(nil, wire.TagLabelName, name...); how {
			case 0: // without a value: none is usual from here on
				labels[at] = l
			case 1: // an empty one
				labels[at] = field(l, wire.TagLabelValue)
			case 2: // two names, of which the last counts
				labels[at] = field(append(l, field(nil, wire.TagLabelName, some("ab", "cd")...)...), wire.TagLabelValue, value...)
			case 3: // value first
				labels[at] = append(field(nil, wire.TagLabelValue, value...), l...)
			case 4: // two values
				labels[at] = field(field(l, wire.TagLabelValue, some("1", "22")...), wire.TagLabelValue, value...)
			case 5: // a length of two bytes
				value = value[:min(len(value), 0x7f)]
				labels[at] = append(append(l, wire.TagLabelValue, byte(len(value))|0x80, 0), value...)
			default:
				labels[at] = field(l, wire.TagLabelValue, value...)
			}
			if rng.IntN(6) == 0 { // another one, too
				k := rng.IntN(len(labels))
				labels[k] = field(field(nil, wire.TagLabelName, some("ab", "cd", "le", "x")...), wire.TagLabelValue, some("1", "22", "33")...)
			}
			var series []byte
			for _, l := range labels {
				series = field(series, wire.TagV1SeriesLabel, l...)
			}
			switch series = field(series, wire.TagV1SeriesSample, sample...); rng.IntN(20) {
			case 0: // a label behind the sample
				series = field(series, wire.TagV1SeriesLabel, field(field(nil, wire.TagLabelName, some("ab", "z")...), wire.TagLabelValue, '9')...)
			case 1, 2:
				series = field(series, wire.TagV1SeriesSample, sample...)
			case 3: // with a field that makes the second longer than any
				series = field(series, wire.TagV1SeriesSample, field(slices.Clone(sample), 15<<3|wire.TypeBytes, []byte(long(8))...)...)
			case 4: // no sample
				series = series[:len(series)-2-len(sample)]
			case 5: // another field, and one that ends with it
				series = field(series, 15<<3|wire.TypeBytes, '9')
			case 6:
				series = field(series[:len(series)-2-len(sample)], 15<<3|wire.TypeBytes, sample...)
			case 7:
				series = field(series[:len(series)-2-len(sample)], wire.TagV1SeriesSample, field(slices.Clone(sample), 15<<3|wire.TypeBytes, []byte(long(8))...)...)
			}
			size := binary.AppendUvarint([]byte{wire.TagV1Series}, uint64(len(series)))
			padded := rng.IntN(20) == 0 // longer than it need be
			if padded {
				size[len(size)-1] |= 0x80
				size = append(size, 0)
			}
			whole = append(whole, padded || len(labels) > wire.MaxPackedLabels)
			series = append(size, series...)
			alone, body = append(alone, series), append(body, series...)
		}
		prints := []Prints{testPrints{testHash}, nil}[seed%2]
		scan := func(b []byte) *cutter {
			c := &cutter{hash: testHash, prints: prints, maxSeries: len(alone)}
			if !c.scan(wire.Part{Protocol: wire.V1, Bucket: "b", Body: b, MaxSamples: 1000}) {
				t.Fatalf("seed %d: not cut", seed)
			}
			return c
		}
		all := scan(body)
		samples := 0
		for k, series := range alone {
			one := scan(series)
			samples += one.sent.Samples
			a, b := &all.items[k], &one.items[0]
			if a.slot != b.slot || prints != nil && all.named[k] != one.named[0] || a.rest-a.from != b.rest || a.end-a.from != b.end {
				t.Fatalf("seed %d: series %d is cut as %+v, alone as %+v: %v, %v", seed, k, *a, *b, all.named, one.named)
			}
			if usual = usual && !one.odd; a.usual != (b.usual && usual) || whole[k] && !a.whole {
				t.Fatalf("seed %d: series %d is cut as %+v, alone as %+v", seed, k, *a, *b)
			}
			if k > 0 && !a.whole && a.changes == all.items[k-1].changes+1 {
				quick++
			}
		}
		if all.series != len(alone) || all.sent.Samples != samples {
			t.Fatalf("seed %d: %d samples of %d series, not %d of %d", seed, all.sent.Samples, all.series, samples, len(alone))
		}
		refused := func(what string, maxSeries int, body []byte) {
			c := cutter{hash: testHash, prints: prints, maxSeries: maxSeries}
			if c.scan(wire.Part{Protocol: wire.V1, Bucket: "b", Body: body, MaxSamples: 1000}) {
				t.Fatalf("seed %d: %s", seed, what)
			}
		}
		refused("more series than there may be", len(alone)-1, body)
		one := field(nil, wire.TagV1SeriesLabel, field(field(nil, wire.TagLabelName, 'x'), wire.TagLabelValue, '1')...)
		one = field(one, wire.TagV1SeriesSample, sample...)
		twice := field(field(body, wire.TagV1Series, one...), wire.TagV1Series, one...)
		refused("a field that is cut", 1000, field(twice, wire.TagV1Series, append(one, wire.TagV1SeriesSample)...))
		refused("a field of which only the tag is there", 1000, field(twice, wire.TagV1Series, append(slices.Clone(one[:len(one)-2-len(sample)]), wire.TagV1SeriesSample)...))
		refused("a sample that ends too late", 1000, field(twice, wire.TagV1Series, append(one, wire.TagV1SeriesSample, 1)...))
		refused("a series that ends too late", 1000, append(twice, wire.TagV1Series, byte(len(one))))
		p := wire.Part{Protocol: wire.V1, Bucket: "b", Body: body, MaxSamples: 1000}
		tab := newTable(3, 1, 2)
		plain, ok1 := cutFor(t, tab, p, false)
		packed, ok2 := cutFor(t, tab, p, true)
		if !ok1 || !ok2 {
			t.Fatalf("seed %d: not cut", seed)
		}
		samePacked(t, plain, packed)
	}
	if quick < 1000 {
		t.Errorf("only %d series differ in one label from the one before", quick)
	}
}

// The same for protocol 2.0: however references are written, and wherever they lead.
func TestReferencesAreCutAsIfAlone(t *testing.T) {
	field := func(dst []byte, tag byte, b ...byte) []byte { return append(append(dst, tag, byte(len(b))), b...) }
	sample := []byte{wire.TagSampleValue, 1, 2, 3, 4, 5, 6, 7, 8, wire.TagSampleTime, 5}
	const symbols = 200 // of two bytes, the later ones
	var head []byte
	for i := range symbols {
		text := fmt.Sprint("symbol ", i)
		if i%50 == 0 {
			text = ""
		}
		head = field(head, wire.TagV2Symbol, []byte(text)...)
	}
	quick := 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 11))
		var refs [][2][]byte // names and values of the series before
		number := func(most int) []byte {
			n := rng.IntN(most)
			switch rng.IntN(40) {
			case 0:
				return []byte{byte(n) | 0x80} // it ends where the next does
			case 1:
				return []byte{byte(n) | 0x80, byte(n>>7) | 0x80, 0} // longer than it need be
			}
			return binary.AppendUvarint(nil, uint64(n))
		}
		pair := func() [2][]byte {
			return [2][]byte{number(8), number(symbols + rng.IntN(2)*rng.IntN(2)*rng.IntN(9))}
		}
		body, from := head, 0
		var alone [][]byte
		for range 40 {
			at := from
			switch n := rng.IntN(12); {
			case len(refs) == 0 || n == 0:
				refs = refs[:0]
				for range 1 + rng.IntN(5) {
					refs = append(refs, pair())
				}
			case n == 1:
				at = rng.IntN(len(refs))
			case n == 2:
				refs = append(refs, pair())
			case n == 3 && len(refs) > 1:
				refs = refs[:len(refs)-1]
			}
			at = min(at, len(refs)-1)
			if from = at; rng.IntN(8) == 0 {
				refs[at] = pair()
			} else {
				old := refs[at][1]
				if refs[at][1] = number(symbols); len(old) == len(refs[at][1]) {
					quick++
				}
			}
			var list []byte
			for _, r := range refs {
				list = slices.Concat(list, r[0], r[1])
			}
			if rng.IntN(30) == 0 {
				list = append(list, 1) // a name without a value
			}
			series := field(field(nil, wire.TagV2SeriesRefs, list...), wire.TagV2SeriesSample, sample...)
			switch rng.IntN(12) {
			case 0:
				series = field(series, wire.TagV2SeriesMetadata, wire.TagV2MetadataHelp, byte(rng.IntN(3)))
			case 1:
				series = field(field(series, wire.TagV2SeriesMetadata), wire.TagV2SeriesSample, sample...)
			case 2:
				series = field(field(series, wire.TagV2SeriesMetadata), wire.TagV2SeriesMetadata)
			}
			series = field(nil, wire.TagV2Series, series...)
			alone, body = append(alone, slices.Concat(head, series)), slices.Concat(body, series)
		}
		prints := []Prints{testPrints{testHash}, nil}[seed%2]
		scan := func(b []byte) *cutter {
			c := &cutter{hash: testHash, prints: prints, maxSeries: 1000, maxSymbols: 1000}
			if !c.scan(wire.Part{Protocol: wire.V2, Bucket: "b", Body: b, MaxSamples: 1000}) {
				t.Fatalf("seed %d: not cut", seed)
			}
			return c
		}
		all := scan(body)
		odd := false // a label without a value has come
		for k, b := range alone {
			one := scan(b)
			a, b := &all.items[k], &one.items[0]
			odd = odd || one.odd
			if a.slot != b.slot || prints != nil && all.named[k] != one.named[0] || a.about != b.about && a.usual ||
				a.usual != (b.usual && !odd) || a.usual && a.rest-a.from != b.rest-b.from || a.end-a.from != b.end-b.from {
				t.Fatalf("seed %d: series %d is cut as %+v, alone as %+v: %v, %v", seed, k, *a, *b, all.named, one.named)
			}
		}
	}
	if quick < 1000 {
		t.Errorf("only %d series differ in one reference from the one before", quick)
	}
}

// The items of a request, however many, go to those that should have them, in their order, and
// each as a copy where another node is to forward it.
func TestItemsAreDivided(t *testing.T) {
	type sent struct {
		item int32
		copy bool
	}
	for _, c := range []struct {
		nodes, copies int
		forwards      bool
		suspect       int
	}{{3, 2, false, 9}, {3, 2, true, 9}, {5, 3, true, 2}, {5, 3, false, 2}, {3, 1, true, 0}, {1, 1, false, 9}} {
		writetest.Both(t, func(t *testing.T, p wire.Protocol) {
			rng := rand.New(rand.NewPCG(5, uint64(c.nodes)))
			const self = 0
			tab := newTable(c.nodes, self, c.copies)
			r := newRouter(t, Options{Cluster: &testCluster{table: tab, suspects: map[string]bool{fmt.Sprintf("n%d#1", c.suspect): c.suspect != self}}, Forwards: c.forwards})
			f := r.flights.Get().(*flight)
			var body []byte
			for i := range 4 { // of which the first is known when the rest comes
				const n = 2 * blockItems / 3
				if body = append(body, writetest.Encode(t, p, again(i*n, n, 1)...)...); p == wire.V2 {
					body = writetest.Encode(t, p, again(0, (i+1)*n, 1)...)
				}
				if p == wire.V1 && i > 0 {
					meta := &prompb.WriteRequest{}
					for range blockItems / 4 {
						meta.Metadata = append(meta.Metadata, prompb.MetricMetadata{MetricFamilyName: fmt.Sprint("m", rng.IntN(100))})
					}
					body = append(body, writetest.Marshal(t, meta)...)
				}
				if i%3 != 0 {
					continue
				}
				f.refs, f.part = 1, wire.Part{Protocol: p, Bucket: "b", Body: body, MaxSamples: 1_000_000}
				if !f.cut.scan(f.part) {
					t.Fatal("not cut")
				}
				f.table, f.boxes, f.need = tab, r.outboxes(tab), 1
				for _, o := range f.boxes.by {
					o.packs.Store(true)
					o.knows.takes.Store(true)
				}
				f.assign()
			}
			want := make([][]sent, c.nodes)
			seriesOf := make([]int, 0, len(f.cut.items))
			series := 0
			for k, it := range f.cut.items {
				seriesOf = append(seriesOf, series)
				if !it.metadata {
					series++
				}
				first := tab.Owners(it.slot)[0]
				owners := slices.DeleteFunc(slices.Clone(tab.Order(it.slot, nil)), func(o uint16) bool { return f.suspects[o] })
				owners = owners[:min(c.copies, len(owners))]
				for i, o := range owners {
					want[o] = append(want[o], sent{int32(k), c.forwards && len(owners) > 1 && owners[0] == first && i > 0})
				}
				if s := f.state[k]; int(s.out) != len(owners) || int(s.want) != c.copies || (s.lead == leadAsked) != (c.forwards && len(owners) > 1 && owners[0] == first) {
					t.Fatalf("item %d is %+v, of %d", k, s, len(owners))
				}
			}
			printed := 0
			for node := range c.nodes {
				var got []sent
				for _, fr := range []*frame{f.frames[node], f.frames[c.nodes+node], {items: f.own.items, copies: f.own.copies}} {
					if fr == nil || (node == self) != (fr.flight == nil) {
						continue
					}
					series := 0
					for i, k := range fr.items {
						got = append(got, sent{k, fr.copies.Has(i)})
						standby := fr.standby.Has(series)
						if node == self {
							standby = f.own.standby.Has(seriesOf[k])
						}
						if f.cut.items[k].metadata {
							continue
						}
						if series++; standby != fr.copies.Has(i) {
							t.Fatalf("node %d: of item %d standby is %v", node, k, standby)
						}
					}
					if fr.printed {
						printed += len(fr.items)
					}
				}
				slices.SortFunc(got, func(a, b sent) int { return int(a.item - b.item) })
				if !slices.Equal(got, want[node]) {
					t.Fatalf("node %d gets\n%v\nwant\n%v", node, got, want[node])
				}
			}
			if c.nodes > 1 && printed == 0 {
				t.Error("nothing is printed")
			}
			names := f.names
			for k, it := range f.cut.items {
				mine := slices.ContainsFunc(want[self], func(x sent) bool { return x.item == int32(k) })
				if it.metadata {
					continue
				}
				if f.skip[seriesOf[k]] == mine {
					t.Fatalf("item %d is mine: %v", k, mine)
				}
				if mine {
					if names[0] != f.cut.nameOf(k) {
						t.Fatalf("item %d is named %v", k, names[0])
					}
					names = names[1:]
				}
			}
			if len(names) > 0 {
				t.Errorf("%d names more", len(names))
			}
		})
	}
}

// Everything that a request can hold is counted: it is what a sender is told.
func TestCutCounts(t *testing.T) {
	writetest.Both(t, func(t *testing.T, p wire.Protocol) {
		c := cutter{hash: testHash, maxSeries: 100, maxSymbols: 100}
		if !c.scan(wire.Part{Protocol: p, Body: full(t, p), MaxSamples: 3}) || c.sent != (wire.Elements{Samples: 1, Histograms: 1, Exemplars: 1}) {
			t.Errorf("counted %+v", c.sent)
		}
	})
}

// More than a request may hold is left to the decoder, which says so.
func TestCutIsBounded(t *testing.T) {
	body := writetest.Encode(t, wire.V2, randomSeries(rand.New(rand.NewPCG(1, 1)), 10)...)
	for _, bound := range []struct{ series, symbols, samples int }{{9, 1000, 1000}, {100, 2, 1000}, {100, 1000, 9}} {
		c := cutter{hash: testHash, maxSeries: bound.series, maxSymbols: bound.symbols}
		if c.scan(wire.Part{Protocol: wire.V2, Body: body, MaxSamples: bound.samples}) {
			t.Error("it was cut")
		}
	}
}

// benchSeries is what a scraper sends: 11 labels, of which few change.
func benchSeries(n int) []writetest.Series {
	var all []writetest.Series
	for i := range n {
		all = append(all, writetest.Series{Labels: writetest.Labels("__name__", fmt.Sprintf("http_requests_total_%d", i/200), "cluster", "production-eu-1", "container", "web",
			"endpoint", "metrics", "handler", fmt.Sprintf("/api/v1/things/%d", i%200), "instance", "10.23.45.67:9090", "job", "kubernetes-pods", "method", "GET",
			"namespace", "storefront", "pod", "web-5f7c6d8b9-x2x7k", "status", "200"), Samples: []mcache.Sample{writetest.Sample(float64(i%15), float64(i))}})
	}
	return all
}

// benchPrints cost what a cluster's do, or a little more.
type benchPrints struct{ sumHash }

func (benchPrints) Check() string                      { return "" }
func (h benchPrints) BucketPrint(string) (a, b uint64) { return 1, 2 }
func (h benchPrints) Name(name string) (a, b uint64, kind uint8) {
	a = maphash.String(h.seed, name)
	return a, a * 0x9e3779b97f4a7c15, 0
}
func (h benchPrints) Pair(a, b uint64, _ uint8, value string) (slot, x, y uint64) {
	v, w := maphash.String(h.seed, value), maphash.String(h.seed, value)
	return (a ^ 0x9e3779b97f4a7c15) * (v | 1), a * v, b * w
}

// BenchmarkCut is a request of 2000 samples cut for 3 nodes and 2 copies, with labels and
// for nodes that know all series by their prints.
func BenchmarkCut(b *testing.B) {
	for _, v := range []wire.Protocol{wire.V1, wire.V2} {
		for _, prints := range []Prints{nil, benchPrints{testHash}} {
			b.Run(fmt.Sprintf("v%v,prints=%v", v, prints != nil), func(b *testing.B) { benchmarkCut(b, v, prints) })
		}
	}
}

func benchmarkCut(b *testing.B, v wire.Protocol, prints Prints) {
	const n = 2000
	r := newRouter(b, Options{Cluster: &testCluster{table: newTable(3, 1, 2)}, Hash: testHash, Prints: prints})
	f := r.flights.Get().(*flight)
	p := wire.Part{Protocol: v, Bucket: "default", Body: writetest.Encode(b, v, benchSeries(n)...), MaxSamples: n}
	f.part, f.table = p, r.o.Cluster.Table()
	f.boxes = r.outboxes(f.table)
	for _, o := range f.boxes.by {
		o.packs.Store(true)
		o.knows.takes.Store(prints != nil)
	}
	cut := func() {
		if !f.cut.scan(p) {
			b.Fatal("not cut")
		}
		f.assign()
		f.drop()
	}
	cut()
	b.ReportAllocs()
	began := cpuTime()
	for b.Loop() {
		cut()
	}
	b.ReportMetric(float64(cpuTime()-began)/float64(b.N)/n, "cpu-ns/sample")
}

// cpuTime is what the process has used: a machine that others use as well says
// nothing by the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
