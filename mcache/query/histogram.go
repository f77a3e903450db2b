package query

import (
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// histogramDecoder decodes native histograms, which the cache keeps as records:
// messages of remote write 2.0.
//
// A histogram of a counter comes with a hint whether the counter was reset
// since the one before it. Prometheus finds that out as it stores them, and on
// reading says "not reset" or that it does not know; here it is detected on
// reading. For the first that is read, that means to look for the one before.
type histogramDecoder struct {
	message writev2.Histogram
	err     error

	// The histogram of the message, in one of the two forms.
	whole *histogram.Histogram
	float *histogram.FloatHistogram

	hint histogram.CounterResetHint
}

func (d *histogramDecoder) reset() {
	if d.whole != nil || d.float != nil || d.err != nil {
		*d = histogramDecoder{}
	}
}

// decode takes over a record. before is the histogram that it follows, nil if
// it does not follow one of its kind.
func (d *histogramDecoder) decode(record []byte, before *histogram.FloatHistogram, beforeIsFloat bool) bool {
	d.message = writev2.Histogram{}
	if err := d.message.Unmarshal(record); err != nil {
		d.err = fmt.Errorf("stored histogram: %w", err)
		return false
	}
	d.whole, d.float = nil, nil
	if d.message.IsFloatHistogram() {
		d.float = d.message.ToFloatHistogram()
		d.hint = d.float.CounterResetHint
	} else {
		d.whole = d.message.ToIntHistogram()
		d.hint = d.whole.CounterResetHint
	}
	if d.hint == histogram.GaugeType {
		return true
	}
	explicit := d.hint == histogram.CounterReset
	d.hint = histogram.UnknownCounterReset
	if now := d.inFloats(); !explicit && before != nil && beforeIsFloat == (d.float != nil) && continues(before, now) {
		d.hint = histogram.NotCounterReset
	}
	return true
}

// inFloats is the current histogram in floats, or nil.
func (d *histogramDecoder) inFloats() *histogram.FloatHistogram {
	switch {
	case d.float != nil:
		return d.float
	case d.whole != nil:
		return d.whole.ToFloat(nil)
	}
	return nil
}

// continues reports whether Prometheus would put a histogram into the chunk of
// the one before, which it does if no counter was reset and the layout is one.
func continues(before, now *histogram.FloatHistogram) bool {
	switch {
	case before.CounterResetHint == histogram.GaugeType, value.IsStaleNaN(before.Sum) && !value.IsStaleNaN(now.Sum):
		return false
	case value.IsStaleNaN(now.Sum):
		return true
	case before.Schema != now.Schema, before.ZeroThreshold != now.ZeroThreshold:
		return false
	}
	hint := now.CounterResetHint
	now.CounterResetHint = histogram.UnknownCounterReset // or it would decide
	reset := now.DetectReset(before)
	now.CounterResetHint = hint
	return !reset
}

func (d *histogramDecoder) valueType() chunkenc.ValueType {
	if d.float != nil {
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValHistogram
}

// histogram returns a copy of the current histogram, in h if that is given.
func (d *histogramDecoder) histogram(h *histogram.Histogram) *histogram.Histogram {
	if h == nil {
		h = &histogram.Histogram{}
	}
	d.whole.CopyTo(h)
	h.CounterResetHint = d.hint
	return h
}

func (d *histogramDecoder) floatHistogram(h *histogram.FloatHistogram) *histogram.FloatHistogram {
	if h == nil {
		h = &histogram.FloatHistogram{}
	}
	if d.float != nil {
		d.float.CopyTo(h)
	} else {
		h = d.whole.ToFloat(h)
	}
	h.CounterResetHint = d.hint
	return h
}
