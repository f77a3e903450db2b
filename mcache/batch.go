package mcache

import (
	"slices"
	"unsafe"
)

// Batch is a set of samples for Append. It is reused by its owner and not
// safe for concurrent use. Its memory grows to the largest batch it has held.
type Batch struct {
	bucket  string
	series  []batchSeries
	samples []Sample
	starts  []int64 // of samples, as far as any has one
	records []Record
	missing []int
	duties  []Duty // of series, as far as any is not Mine
	blocks  []batchBlock

	order  []batchPlace // of series, by shard
	counts []int32
}

// batchPlace is one series of a batch, in the order in which it is written.
type batchPlace struct {
	fp     Fingerprint // in the bucket
	series int32       // position in Batch.series
	from   int32       // first sample
}

type batchSeries struct {
	fp           Fingerprint // as given; the bucket is mixed in by Append
	from, record int32       // first sample, first record
}

// content is what one series of a batch is to get.
type content struct {
	samples []Sample
	starts  []int64 // of the first samples; the others have none
	records []Record
	blocks  []batchBlock
	local   bool // the program's own
	duty    Duty
}

// first is the time of the first of the blocks, samples or records, in that order;
// not ok if there are none.
func (c *content) first() (t int64, ok bool) {
	switch {
	case len(c.blocks) > 0:
		return c.blocks[0].first, true
	case len(c.samples) > 0:
		return c.samples[0].T, true
	case len(c.records) > 0:
		return c.records[0].T, true
	}
	return 0, false
}

// Reset empties the batch for samples of a bucket.
func (b *Batch) Reset(bucket string) {
	b.bucket = bucket
	b.series, b.samples, b.starts, b.missing = b.series[:0], b.samples[:0], b.starts[:0], b.missing[:0]
	clear(b.records)
	clear(b.blocks)
	b.records, b.duties, b.blocks = b.records[:0], b.duties[:0], b.blocks[:0]
}

// Series begins the series with the fingerprint f.
func (b *Batch) Series(f Fingerprint) {
	b.series = append(b.series, batchSeries{f, int32(len(b.samples)), int32(len(b.records))})
}

// Sample adds one sample to the series begun last: t in ms, v the bit pattern.
func (b *Batch) Sample(t int64, v uint64) {
	b.samples = append(b.samples, Sample{T: t, V: v})
}

// StartTime gives the sample added last a start time in ms; 0 is none.
func (b *Batch) StartTime(start int64) {
	if start == 0 {
		return
	}
	for len(b.starts) < len(b.samples)-1 {
		b.starts = append(b.starts, 0)
	}
	b.starts = append(b.starts[:len(b.samples)-1], start)
}

// Record adds one point whose value is bytes to the series begun last. value
// must stay as it is until the batch is reset.
func (b *Batch) Record(t int64, value []byte) {
	b.records = append(b.records, Record{T: t, Value: value})
}

// Duty says who hands the series added last on to the downstream store; Mine if
// nothing is said.
func (b *Batch) Duty(d Duty) {
	if d == Mine {
		return
	}
	for len(b.duties) < len(b.series)-1 {
		b.duties = append(b.duties, Mine)
	}
	b.duties = append(b.duties, d)
}

// dutyOf is that of series i.
func (b *Batch) dutyOf(i int) Duty {
	if i < len(b.duties) {
		return b.duties[i]
	}
	return Mine
}

// Decoders that know the series of a sample only after it write into the batch
// directly, and say then whose samples those are: they take Samples, append to
// it, give it back by SetSamples, and end with SeriesFrom, or, if they want
// none of it, with SetSamples of what it was.

// Samples are those of all series, in the order in which series were added;
// valid until one is added.
func (b *Batch) Samples() []Sample { return b.samples }

// SetSamples takes back Samples with more behind it, or without what is not in
// any series yet.
func (b *Batch) SetSamples(samples []Sample) { b.samples = samples }

// SeriesFrom is Series for samples that are there already: those from the
// first-th of all on. starts are the start times of the first of them.
func (b *Batch) SeriesFrom(first int, f Fingerprint, starts []int64) {
	b.series = append(b.series, batchSeries{f, int32(first), int32(len(b.records))})
	if len(starts) == 0 {
		return
	}
	b.starts = slices.Grow(b.starts, first+len(starts)-len(b.starts))
	for len(b.starts) < first {
		b.starts = append(b.starts, 0)
	}
	b.starts = append(b.starts, starts...)
}

// Len is the number of series.
func (b *Batch) Len() int { return len(b.series) }

// Bytes is what the tables of b take on the heap, that which Append makes
// included. It takes no longer for a large batch.
func (b *Batch) Bytes() int {
	return cap(b.series)*int(unsafe.Sizeof(batchSeries{})+unsafe.Sizeof(batchPlace{})) + cap(b.samples)*int(unsafe.Sizeof(Sample{})) +
		cap(b.starts)*8 + cap(b.records)*int(unsafe.Sizeof(Record{})) + cap(b.missing)*8 + cap(b.duties) + cap(b.blocks)*int(unsafe.Sizeof(batchBlock{}))
}

// Missing is, after Append, the positions of the series that the cache does not
// know. It is valid until the next call on the batch.
func (b *Batch) Missing() []int { return b.missing }

// of is the content of series i.
func (b *Batch) of(i int) content {
	from, to := int(b.series[i].from), len(b.samples)
	record, recordEnd := int(b.series[i].record), len(b.records)
	if i+1 < len(b.series) {
		to, recordEnd = int(b.series[i+1].from), int(b.series[i+1].record)
	}
	c := content{samples: b.samples[from:to], records: b.records[record:recordEnd], duty: b.dutyOf(i)}
	if from < len(b.starts) {
		c.starts = b.starts[from:min(to, len(b.starts))]
	}
	if len(b.blocks) > 0 {
		c.blocks = b.blocksOf(i)
	}
	return c
}

// sortByShard sets b.order by counting.
func (b *Batch) sortByShard(c *Cache, bk *bucket) {
	b.counts = append(b.counts[:0], make([]int32, len(c.shards)+1)...)
	mask := uint64(len(c.shards) - 1)
	for i := range b.series {
		b.counts[b.series[i].fp.in(bk).hi&mask+1]++
	}
	for i := range c.shards {
		b.counts[i+1] += b.counts[i]
	}
	if cap(b.order) < len(b.series) {
		b.order = make([]batchPlace, len(b.series))
	}
	b.order = b.order[:len(b.series)]
	for i := range b.series {
		f := b.series[i].fp.in(bk)
		k := f.hi & mask
		b.order[b.counts[k]] = batchPlace{f, int32(i), b.series[i].from}
		b.counts[k]++
	}
}
