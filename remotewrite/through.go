package remotewrite

import (
	"github.com/klauspost/compress/s2"

	"mcached/remotewrite/wire"
)

// through is the window that a request is read through while it is decompressed, where
// all of it are usual series of protocol 1.0: labels, then samples of usual times.
//
// What is read leaves the window, but for the labels of the series before. So whatever
// needs the labels later has the body decompressed as a whole: at once, if only some
// series turn out to be new; from the beginning, where anything is unusual. Then
// nothing has been done yet but to fill the batch.
type through struct {
	unsnappy
	began  bool
	gaveUp bool
	kept   []byte // decoded, before it became the window
	waits  int    // so many requests are not tried
}

// waitsThrough is how many requests are not tried after one that was read twice.
const waitsThrough = 15

// reads reports that decoded is a window.
func (t *through) reads() bool { return t.began }

// giveUp says that what is in hand is unusual.
func (t *through) giveUp() { t.gaveUp = true }

// readThrough fills the batch with what is in a body that is one for it, of n bytes when
// decompressed, and keeps the body until closeWindow. If it reports false, nothing was done.
func (in *intake) readThrough(e encoding, body []byte, n int) (ok bool) {
	t := &in.through
	if in.protocol != wire.V1 || e != snappyBlock || n < 2*t.piece {
		return false // less stays in the processor's caches as it is
	}
	if t.waits > 0 {
		t.waits--
		return false
	}
	t.begin(body)
	t.kept, t.began, t.gaveUp = in.decoded, true, false
	if in.seriesThrough() {
		return true
	}
	in.closeWindow()
	t.waits = waitsThrough
	lent := in.lent
	in.reset(in.protocol, in.bucket, in.lease)
	in.lent = lent
	return false
}

// closeWindow makes decoded what it was before it became a window.
func (in *intake) closeWindow() {
	if t := &in.through; t.began {
		poison(t.window)
		in.decoded, t.kept, t.src, t.began, t.base = t.kept, nil, nil, false, 0
	}
}

// decodeWhole makes decoded all of a body that was read through a window. Where many of
// its series are new, so are those of the requests to come.
func (in *intake) decodeWhole() (err error) {
	n, body := in.through.n, in.through.src
	in.closeWindow()
	if len(in.batch.Missing()) > in.batch.Len()/8 {
		in.through.waits = waitsThrough
	}
	in.reserve(n)
	in.decoded, err = s2.Decode(in.decoded[:cap(in.decoded)], body)
	return err
}

// seriesThrough is decodeV1 of a window.
func (in *intake) seriesThrough() (ok bool) {
	t := &in.through
	series := 0
	for i := 0; ; {
		keep := i
		if in.before != nil {
			keep = cap(t.window) - cap(in.before) // where it begins
		}
		if !t.more(keep) {
			return false
		}
		i -= keep
		in.decoded = t.window[:t.d]
		if in.before != nil && !in.follow() {
			return false
		}
		for i < t.d {
			if in.decoded[i] != wire.TagV1Series {
				return false
			}
			from, to := wire.Bytes(in.decoded, i+1)
			if from < 0 {
				break // there is more of it
			}
			if series++; series > in.o.MaxSeries {
				return false
			}
			if at := t.base + to; at >= in.lookAt && in.look(t.base+from, to-from) != nil {
				return false
			}
			if in.seriesV1(from, to) != nil || t.gaveUp {
				return false
			}
			i = to
		}
		if t.whole() {
			return i == t.d
		}
	}
}

// follow makes the labels of the series before be at the beginning of the window,
// where they are now.
func (in *intake) follow() (ok bool) {
	in.before = in.decoded[:len(in.before)]
	start := 0
	for k, end := range in.ends {
		from, to := wire.Bytes(in.before[:end], start+1)
		if from < 0 {
			return false
		}
		if in.pairs[k].text, _, ok = label(in.before[from:to]); !ok {
			return false
		}
		start = int(end)
	}
	return true
}
