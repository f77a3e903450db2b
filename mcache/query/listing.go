package query

import (
	"slices"
	"sync"

	"mcached/mcache"
)

// listings are what lookups of series answered: the JSON of the label sets of certain
// series, in order. The page of a dashboard asks for the same ones whenever it is opened,
// and to sort and to write them is half of the work. Ids are never given to other
// series, so that a listing can not be wrong. It holds two generations, as LabelCache
// does, and is safe for concurrent use.
type listings struct {
	maxBytes   int // of a generation
	mu         sync.Mutex
	young, old map[uint64]listing // by the hash of ids
	youngBytes int
}

// listing is never changed.
type listing struct {
	ids  []mcache.SeriesID
	text []byte // label sets with commas between
}

const (
	// maxListingBytes bounds the labels in one text; of more it is written as it is sent.
	maxListingBytes = flushBytes
	// listingEntryBytes is what one takes in a map beside ids and text.
	listingEntryBytes = 128
)

func hashOfIDs(ids []mcache.SeriesID) uint64 {
	h := uint64(len(ids))
	for _, id := range ids {
		h = (h ^ uint64(id)) * 0x9e3779b97f4a7c15
		h ^= h >> 32
	}
	return h
}

// get returns the text for exactly these series, in this order of ids. It must not be changed.
func (l *listings) get(ids []mcache.SeriesID) ([]byte, bool) {
	h := hashOfIDs(ids)
	l.mu.Lock()
	defer l.mu.Unlock()
	found, ok := l.young[h]
	if !ok {
		if found, ok = l.old[h]; ok {
			l.putLocked(h, found)
		}
	}
	return found.text, ok && slices.Equal(found.ids, ids)
}

// put keeps a text. Both slices are the listings' from then on.
func (l *listings) put(ids []mcache.SeriesID, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.putLocked(hashOfIDs(ids), listing{ids, text})
}

func (l *listings) putLocked(h uint64, x listing) {
	size := 8*cap(x.ids) + cap(x.text) + listingEntryBytes
	if size > l.maxBytes {
		return
	}
	before, known := l.young[h] // of others with the same hash, or put by another request meanwhile
	if known {
		l.youngBytes -= 8*cap(before.ids) + cap(before.text) + listingEntryBytes
	}
	if l.youngBytes+size > l.maxBytes || l.young == nil {
		l.old, l.young, l.youngBytes = l.young, map[uint64]listing{}, 0
	}
	l.young[h] = x
	l.youngBytes += size
}
