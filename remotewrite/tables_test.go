package remotewrite

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/golang/snappy"

	"mcached/remotewrite/wire"
)

// What a request is decoded into is asked of admission as it grows, whatever it
// consists of: elements of two bytes become dozens each.
func TestTablesAreLent(t *testing.T) {
	const n = 150_000 // elements, of two bytes: what all bounds on counts let pass
	series := func(tag byte, elements []byte) []byte {
		b := append([]byte{tag}, binary.AppendUvarint(nil, uint64(len(elements)))...)
		return append(b, elements...)
	}
	for name, c := range map[string]struct {
		p     wire.Protocol
		body  []byte
		least int64 // bytes for each element
	}{
		"symbols":        {wire.V2, bytes.Repeat([]byte{wire.TagV2Symbol, 0}, n), 48},
		"series of 2.0":  {wire.V2, bytes.Repeat([]byte{wire.TagV2Series, 0}, n), 8},
		"samples of 2.0": {wire.V2, series(wire.TagV2Series, bytes.Repeat([]byte{wire.TagV2SeriesSample, 0}, n)), 16},
		"samples of 1.0": {wire.V1, series(wire.TagV1Series, bytes.Repeat([]byte{wire.TagV1SeriesSample, 0}, n)), 16},
		"exemplars":      {wire.V1, series(wire.TagV1Series, bytes.Repeat([]byte{wire.TagV1SeriesExemplar, 0}, n)), 60},
	} {
		t.Run(name, func(t *testing.T) {
			packed := snappy.Encode(nil, c.body)
			a := &admission{limit: 1 << 30}
			r := newReceiver(t, Options{Admission: a.open})
			r.Send(c.p, c.body)
			now, most := a.lent()
			if least := int64(len(packed)+len(c.body)) + c.least*n; most < least || now != 0 {
				t.Errorf("%d bytes were lent, want %d at the least; %d still are", most, least, now)
			}
			// Where there is not so much, nothing is written, and the sender comes again.
			a = &admission{limit: most - c.least*n/2}
			r = newReceiver(t, Options{Admission: a.open})
			answered(t, r.Send(c.p, c.body), 503, "busy")
			if now, _ := a.lent(); now != 0 {
				t.Errorf("%d bytes still are lent", now)
			}
		})
	}
}
