package route

import (
	"encoding/binary"

	"mcached/remotewrite/wire"
)

// A frame in protocol 1.0 for a node that takes it is packed (wire.PackedV1):
// scan knows which labels of a series are other than in the one before, and these
// alone are sent. What is added to it when another node fails is not packed, so
// that it is unpacked first.

// maxSpan is how many changes are looked at for a series. More of them lie
// between two series of a frame if few go to its node: then it is sent as it is.
const maxSpan = 32

// none is frame.last before there is a series that the next can refer to.
const none = -1

// pack adds an item to the body of a packed frame. Broken is the last item, up
// to this one, that cannot be told by changes.
func (f *frame) pack(c *cutter, k, broken int) {
	it := &c.items[k]
	last := int(f.last)
	switch f.last = int32(k); {
	case it.metadata || c.body[it.from] != wire.TagV1Series:
		f.last = none
	case last != none && last >= broken && f.packSeries(c, it, c.changes[c.items[last].changes:it.changes]):
		return
	}
	f.body = binary.AppendUvarint(append(f.body, 0), uint64(it.to-it.from))
	f.body = append(f.body, c.body[it.from:it.to]...)
}

// packSeries adds a series by what has changed since the last of the frame. It
// reports false if that is too much.
func (f *frame) packSeries(c *cutter, it *item, span []change) bool {
	if len(span) > maxSpan {
		return false
	}
	var some [wire.MaxPackedChanges]change // the newest at each place, by their places
	n := 0
	for k := len(span) - 1; k >= 0; k-- {
		at := 0
		for at < n && some[at].place < span[k].place {
			at++
		}
		if at < n && some[at].place == span[k].place {
			continue
		}
		if n == len(some) {
			return false
		}
		if at < n {
			copy(some[at+1:n+1], some[at:n])
		}
		some[at] = span[k]
		n++
	}
	b := append(f.body, byte(1+n))
	for _, x := range some[:n] {
		b = append(append(b, byte(x.place)), c.body[x.from:x.to]...)
	}
	b = binary.AppendUvarint(b, uint64(it.to-it.rest))
	f.body = append(b, c.body[it.rest:it.to]...)
	return true
}

// seal says at the head of a packed frame what it becomes.
func (f *frame) seal() {
	if f.packed {
		binary.LittleEndian.PutUint32(f.body, uint32(f.plain))
	}
}

// unpack makes the items lie in a frame as they were before they were packed.
func (f *frame) unpack() {
	if !f.packed {
		return
	}
	b, err := wire.Unpack(make([]byte, 0, f.plain), f.body)
	if err != nil {
		panic("route: a frame that was packed cannot be unpacked: " + err.Error())
	}
	f.body, f.packed, f.lent = b, false, false
}
