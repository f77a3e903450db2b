package query

import (
	"slices"

	"mcached/mcache"
)

// listings are what lookups of series answered: the JSON of the label sets of certain
// series, in order. The page of a dashboard asks for the same ones whenever it is opened,
// and to sort and to write them is half of the work. Ids are never given to other
// series, so that a listing can not be wrong.
type listings struct {
	generations[uint64, listing] // by the hash of ids
}

func newListings(maxBytes int) listings {
	return listings{generations[uint64, listing]{maxBytes: maxBytes, size: func(_ uint64, x listing) int {
		return 8*cap(x.ids) + cap(x.text) + listingEntryBytes
	}}}
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

// of returns the text for exactly these series, in this order of ids. It must not be changed.
func (l *listings) of(ids []mcache.SeriesID) ([]byte, bool) {
	found, ok := l.get(hashOfIDs(ids))
	return found.text, ok && slices.Equal(found.ids, ids)
}

// keep keeps a text. Both slices are the listings' from then on.
func (l *listings) keep(ids []mcache.SeriesID, text []byte) {
	l.put(hashOfIDs(ids), listing{ids, text})
}
