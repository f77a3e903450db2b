package remotewrite

import (
	"fmt"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/remotewrite/wire"
)

// Native histograms are kept as records, whose value is the message
// io.prometheus.write.v2.Histogram, its timestamp and start timestamp included.
// The message of protocol 1.0 has the same fields but the last.

// Schemas beyond maxSchema, up to lastReservedSchema, are finer than what
// readers know. They are not refused but merged to maxSchema, as Prometheus does.
const (
	maxSchema          = 8
	lastReservedSchema = 52
)

// histogram is a valid one of the series in hand.
type histogram struct {
	t     int64  // ms
	value []byte // of the record; a view into decoded, mostly
}

// histogram decodes the Histogram message b and adds it to those of the series
// in hand, or to what is wrong with it. It reports false if b is malformed.
func (in *intake) histogram(b []byte) bool {
	var h writev2.Histogram
	if in.protocol == wire.V1 {
		var h1 prompb.Histogram
		if h1.Unmarshal(b) != nil {
			return false
		}
		if h1.XXX_unrecognized != nil {
			// Fields of a later version must not become those of the other protocol.
			var err error
			h1.XXX_unrecognized = nil
			if b, err = h1.Marshal(); err != nil {
				return false
			}
		}
	}
	if h.Unmarshal(b) != nil {
		return false
	}
	changed, err := checkInPlace(&h)
	if err == nil && changed {
		b, err = h.Marshal()
	}
	if limit := in.cache.MaxRecord(); err == nil && len(b) > limit {
		err = fmt.Errorf("it has %d bytes, more than %d", len(b), limit)
	}
	if err != nil {
		in.badHistograms++
		in.whyBad = err
		return true
	}
	in.histograms = append(in.histograms, histogram{h.Timestamp, b})
	return true
}

// checkInPlace applies Prometheus' rules for what a histogram may be.
func checkInPlace(h *writev2.Histogram) (changed bool, err error) {
	reduce := h.Schema > maxSchema && h.Schema <= lastReservedSchema
	if h.IsFloatHistogram() {
		f := h.ToFloatHistogram()
		if reduce {
			if err := f.ReduceResolution(maxSchema); err != nil {
				return false, err
			}
			*h = writev2.FromFloatHistogram(h.StartTimestamp, h.Timestamp, f)
		}
		return reduce, f.Validate()
	}
	i := h.ToIntHistogram()
	if reduce {
		if err := i.ReduceResolution(maxSchema); err != nil {
			return false, err
		}
		*h = writev2.FromIntHistogram(h.StartTimestamp, h.Timestamp, i)
	}
	return reduce, i.Validate()
}

// CheckHistogram returns an error for bytes that are not a native histogram as
// a Handler keeps one: for records that were stored elsewhere meanwhile.
func CheckHistogram(b []byte) error {
	var h writev2.Histogram
	if err := h.Unmarshal(b); err != nil {
		return err
	}
	finer, err := checkInPlace(&h)
	if err == nil && finer {
		err = fmt.Errorf("its schema is finer than %d", maxSchema)
	}
	return err
}
