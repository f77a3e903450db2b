package remotewrite

import (
	"context"
	"net/http"
	"slices"

	"mcached/mcache"
	"mcached/remotewrite/prints"
	"mcached/remotewrite/wire"
)

// Nodes name series to each other by prints (wire.Print). A node learns which series of
// its cache has which print from parts that carry both. A fingerprint says which label set
// is meant, not where it lies, so that what is learned never becomes wrong: of a series
// that is gone the cache does not know the fingerprint, and its labels are asked for.
//
// Only what validate has let pass is written, so a print whose series was found wrong
// leads to a fingerprint that the cache never knows.

// printed is a series that a print is learned of.
type printed struct {
	print wire.Print
	f     mcache.Fingerprint
}

// writeAndLearn is write for a request some series of which have prints.
func (h *Handler) writeAndLearn(ctx context.Context, in *intake) wire.Answer {
	a := h.write(ctx, in)
	if len(in.learned) == 0 {
		return a
	}
	c := h.prints.Write()
	defer c.Close()
	for _, x := range in.learned {
		c.Put(x.print, x.f)
	}
	return a
}

// find looks for series that do not belong to others by their names. Of those that it does not
// find, and has learned when they were written, it takes away Rest.
func (in *intake) find(names []wire.Named, trail *prints.Trail[mcache.Fingerprint]) {
	in.names, in.found = names, in.found[:0]
	c := trail.Read()
	defer c.Close()
	for k := range names {
		x := &names[k]
		f, ok := mcache.Fingerprint{}, false
		if x.Rest > 0 {
			if f, ok = c.Find(x.Print); !ok {
				x.Rest = 0
			}
		}
		in.found = append(in.found, f)
	}
}

// named is the next of names and, if its labels need not be read, its fingerprint. Else
// Rest is 0.
func (in *intake) named() (x wire.Named, f mcache.Fingerprint) {
	x, f = in.names[0], in.found[len(in.found)-len(in.names)]
	in.names = in.names[1:]
	if in.print = x.Print; x.Rest > 0 {
		in.print = wire.Print{} // it is known
	}
	return x, f
}

// writePrinted writes a part of protocol wire.Printed, and says of which series it wants
// the labels: those it does not know, and those of which anything is not as usual, so
// that it need not say what is wrong with them.
func (h *Handler) writePrinted(in *intake) wire.Answer {
	unknown, series, err := in.decodePrinted(h.prints.Read())
	if err != nil {
		return answerOf(wrong(err))
	}
	written, err := in.cache.Append(&in.batch)
	if err != nil {
		if in.problems.cache(err, in.o, func() string { return "one of those that are known" }); in.problems.retry == nil {
			in.problems.reset()
			unknown, written = all(series), 0 // their labels tell which it is
		}
	} else {
		for _, i := range in.batch.Missing() {
			unknown = append(unknown, int(in.at[i].from))
		}
		slices.Sort(unknown)
	}
	in.written = written
	h.counters.addPrinted(in, series-len(unknown))
	a := wire.Answer{Status: http.StatusNoContent, Written: wire.Elements{Samples: in.written}, Unknown: unknown}
	h.retry(in, &a)
	return a
}

// all are the numbers below n.
func all(n int) []int {
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = i
	}
	return numbers
}

// decodePrinted puts the series of a printed part into the batch. At has their numbers in
// the part. It returns the numbers of those that it does not know, and how many there are.
func (in *intake) decodePrinted(c prints.Cursor[mcache.Fingerprint]) (unknown []int, series int, err error) {
	b := in.decoded
	defer c.Close()
	for i := 0; i < len(b); series++ {
		print, from, to := wire.PrintedAt(b, i)
		if from < 0 {
			return nil, series, malformed("printed part", i)
		}
		if series == in.o.MaxSeries {
			return nil, series, in.o.tooMany("series", in.o.MaxSeries, "MaxSeries")
		}
		if to >= in.lookAt {
			if err := in.look(to, 0); err != nil {
				return nil, series, err
			}
		}
		i = to
		if in.shared {
			in.passes(series)
		}
		f, ok := c.Find(print)
		if !ok || !in.printedSeries(f, b[:to], from, series) {
			unknown = append(unknown, series)
		}
	}
	return unknown, series, nil
}

// printedSeries puts a series, of that number in the part, the samples of which b ends with,
// into the batch. It reports false, and does nothing, if they are not as usual.
func (in *intake) printedSeries(f mcache.Fingerprint, b []byte, i, number int) bool {
	samples := in.batch.Samples()
	first := len(samples)
	for i < len(b) {
		x, end := usualSample(b, i)
		if end == 0 {
			if x, end = shortSample(b, i); end < 0 {
				return false
			}
		}
		if uint64(x.T-earlyMs) >= in.usual {
			return false
		}
		samples, i = append(samples, x), end
	}
	if len(samples) == first {
		return false
	}
	in.batch.SetSamples(samples)
	in.batch.SeriesFrom(first, f, nil)
	if in.duty != mcache.Mine {
		in.batch.Duty(in.duty)
	}
	in.at = append(in.at, place{piece: piece{from: uint32(number)}, samples: uint32(len(samples) - first)})
	return true
}

// shortSample decodes a field of a series at b[i:] that is a sample with no more than
// value and time, of which either may be left out. The index is -1 if it is none.
func shortSample(b []byte, i int) (x mcache.Sample, end int) {
	t, i := wire.Tag(b, i)
	if t != wire.TagV1SeriesSample {
		return x, -1
	}
	from, to := wire.Bytes(b, i)
	if from < 0 {
		return x, -1
	}
	x, start, ok := decodeSample(b[from:to], wire.LastV2Sample)
	if !ok || start != 0 {
		return x, -1
	}
	return x, to
}
