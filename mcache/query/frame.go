package query

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"math/bits"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Keys of protobuf fields: the number, times eight, plus 2 for a length and
// bytes, 1 for eight bytes, 0 for a varint. The messages are those of
// Prometheus' prompb/remote.proto and types.proto.
const (
	fieldResults    = 1<<3 | 2 // ReadResponse.results
	fieldTimeseries = 1<<3 | 2 // QueryResult.timeseries

	fieldLabels     = 1<<3 | 2 // TimeSeries.labels, ChunkedSeries.labels
	fieldSamples    = 2<<3 | 2 // TimeSeries.samples
	fieldHistograms = 4<<3 | 2 // TimeSeries.histograms

	fieldName       = 1<<3 | 2 // Label.name
	fieldLabelValue = 2<<3 | 2 // Label.value

	fieldValue     = 1<<3 | 1 // Sample.value
	fieldTimestamp = 2 << 3   // Sample.timestamp

	fieldChunkedSeries = 1<<3 | 2 // ChunkedReadResponse.chunked_series
	fieldQueryIndex    = 2 << 3   // ChunkedReadResponse.query_index
	fieldChunks        = 2<<3 | 2 // ChunkedSeries.chunks

	fieldMinTime = 1 << 3   // Chunk.min_time_ms
	fieldMaxTime = 2 << 3   // Chunk.max_time_ms
	fieldType    = 3 << 3   // Chunk.type
	fieldData    = 4<<3 | 2 // Chunk.data
)

func varintLen(u uint64) int { return (bits.Len64(u|1) + 6) / 7 }

func appendVarint(b []byte, key byte, v int64) []byte {
	return binary.AppendUvarint(append(b, key), uint64(v))
}

// wrap makes b[start:] a field: it moves it behind a key and its length.
func wrap(b []byte, start int, key byte) []byte {
	n := len(b) - start
	head := 1 + varintLen(uint64(n))
	var room [1 + binary.MaxVarintLen64]byte
	b = append(b, room[:head]...)
	copy(b[start+head:], b[start:start+n])
	b[start] = key
	binary.PutUvarint(b[start+1:], uint64(n))
	return b
}

func appendText(b []byte, key byte, s string) []byte {
	b = binary.AppendUvarint(append(b, key), uint64(len(s)))
	return append(b, s...)
}

func textLen(s string) int { return 1 + varintLen(uint64(len(s))) + len(s) }

func appendLabels(b []byte, ls labels.Labels) []byte {
	ls.Range(func(l labels.Label) {
		b = append(b, fieldLabels)
		b = binary.AppendUvarint(b, uint64(textLen(l.Name)+textLen(l.Value)))
		b = appendText(b, fieldName, l.Name)
		b = appendText(b, fieldLabelValue, l.Value)
	})
	return b
}

// appendSample writes both fields even if they are zero: the zero that is left
// out has no sign.
func appendSample(b []byte, t int64, v uint64) []byte {
	const valueLen = 1 + 8
	b = append(b, fieldSamples, byte(valueLen+1+varintLen(uint64(t))), fieldValue)
	b = binary.LittleEndian.AppendUint64(b, v)
	return appendVarint(b, fieldTimestamp, t)
}

// samplesPerChunk is how many Prometheus itself puts into one.
const samplesPerChunk = 120

// frameWriter writes the frames of a streamed answer: the length of a message,
// its checksum, and the message, which is one series or a part of one.
type frameWriter struct {
	rd      *reader
	crc     *crc32.Table
	out     []byte // frames that have not been sent
	message []byte // the one that is being made
	labels  []byte // of the series, encoded
	xor     xorEncoder
	lent    int64 // bytes of the two buffers that the loan has
}

// lend takes from the loan what the buffers have grown to, if they have.
func (fw *frameWriter) lend(ctx context.Context) error {
	n := int64(cap(fw.out) + cap(fw.message))
	if n <= max(fw.lent, bufferBytes) {
		return nil
	}
	err := fw.rd.q.loan.Take(ctx, n-fw.lent)
	if err == nil {
		fw.lent = n
	}
	return err
}

// series writes the frames of one series, or none if it has no samples.
func (fw *frameWriter) series(ctx context.Context, s *series, query int) error {
	it := &fw.rd.it
	it.reset(s)
	more := it.Next() != chunkenc.ValNone
	if !more {
		return it.Err()
	}
	fw.labels = appendLabels(fw.labels[:0], s.labels)
	for more {
		fw.message = append(fw.message[:0], fw.labels...)
		for more && len(fw.message) < fw.rd.api.o.MaxFrameBytes {
			var err error
			if more, err = fw.chunk(it); err != nil {
				return err
			}
		}
		fw.message = wrap(fw.message, 0, fieldChunkedSeries)
		if query != 0 {
			fw.message = appendVarint(fw.message, fieldQueryIndex, int64(query))
		}
		fw.out = binary.AppendUvarint(fw.out, uint64(len(fw.message)))
		fw.out = binary.BigEndian.AppendUint32(fw.out, crc32.Checksum(fw.message, fw.crc))
		fw.out = append(fw.out, fw.message...)
		if err := fw.lend(ctx); err != nil {
			return err
		}
		if len(fw.out) >= flushBytes {
			if err := fw.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// chunk appends a chunk, or more, from the point it stands on, and reports
// whether there are more points.
func (fw *frameWriter) chunk(it *iterator) (more bool, err error) {
	if it.state == onHistogram {
		return fw.histogramChunks(it)
	}
	fw.xor.reset()
	first, last, n := it.at.T, it.at.T, 0
	kind := chunkenc.ValFloat
	for kind == chunkenc.ValFloat && n < samplesPerChunk {
		last = it.at.T
		fw.xor.append(it.at)
		n++
		kind = it.Next()
	}
	fw.rd.read += n
	fw.appendChunk(chunkenc.EncXOR, first, last, fw.xor.bytes())
	return kind != chunkenc.ValNone, it.Err()
}

// histogramChunks appends the histograms of one kind that follow each other. A
// chunk may have to end where their buckets change or a counter was reset.
func (fw *frameWriter) histogramChunks(it *iterator) (more bool, err error) {
	kind := it.valueType()
	chunk, err := kind.NewChunk(false, false)
	if err != nil {
		return false, err
	}
	appender, err := chunk.Appender()
	if err != nil {
		return false, err
	}
	first, last, next := it.at.T, it.at.T, kind
	for n := 0; next == kind && n < samplesPerChunk; n++ {
		var (
			other   chunkenc.Chunk
			recoded bool
		)
		if kind == chunkenc.ValHistogram {
			_, h := it.AtHistogram(nil)
			other, recoded, appender, err = appender.AppendHistogram(nil, 0, it.at.T, h, false)
		} else {
			_, h := it.AtFloatHistogram(nil)
			other, recoded, appender, err = appender.AppendFloatHistogram(nil, 0, it.at.T, h, false)
		}
		if err != nil {
			return false, err
		}
		if other != nil {
			if !recoded {
				fw.appendChunk(chunk.Encoding(), first, last, chunk.Bytes())
				first = it.at.T
			}
			chunk = other
		}
		last = it.at.T
		fw.rd.read++
		next = it.Next()
	}
	fw.appendChunk(chunk.Encoding(), first, last, chunk.Bytes())
	return next != chunkenc.ValNone, it.Err()
}

func (fw *frameWriter) appendChunk(e chunkenc.Encoding, first, last int64, data []byte) {
	start := len(fw.message)
	b := appendVarint(fw.message, fieldMinTime, first)
	b = appendVarint(b, fieldMaxTime, last)
	b = appendVarint(b, fieldType, int64(e))
	b = binary.AppendUvarint(append(b, fieldData), uint64(len(data)))
	b = append(b, data...)
	fw.message = wrap(b, start, fieldChunks)
}

func (fw *frameWriter) flush() error {
	if len(fw.out) == 0 {
		return nil
	}
	err := fw.rd.send(fw.out)
	fw.out = fw.out[:0]
	return err
}
