package mcache

import (
	"math"
	"sort"

	"mcached/mcache/block"
)

// Planning a mend touches no memory: it decides by times and counts alone, and
// plan_test.go tries it on every small world.

// place is where the beginning of an out-of-order run goes.
type place struct {
	block int  // the block it joins, or the position in the directory of one of its own
	join  bool // it joins the block
}

// planTake finds the block that the first sample of a run lies in or behind,
// the first block if it is before all, and how many samples of the run belong
// there: those before the start of the next block. blocks may be 0; run is
// sorted and not empty.
func planTake(blocks int, start func(block int) int64, run []Sample) (at, take int) {
	at = max(sort.Search(blocks, func(i int) bool { return start(i) > run[0].T })-1, 0)
	limit := int64(math.MaxInt64)
	if at+1 < blocks {
		limit = start(at + 1)
	}
	take = sort.Search(min(len(run), block.MaxSamples), func(i int) bool { return run[i].T >= limit })
	return at, take
}

// planPlace decides whether part, as planTake took it for block k, joins that
// block, which has n samples from first to last. A full block is left alone
// where none of the part lies inside it.
func planPlace(k, n int, first, last int64, part []Sample) place {
	switch {
	case n < block.MaxSamples:
		return place{k, true}
	case part[0].T > last:
		return place{k + 1, false}
	case part[len(part)-1].T < first:
		return place{k, false}
	}
	return place{k, true}
}

// planSplit is how many of n samples, at most two blocks' worth, the first
// block takes: all, or half, so that both halves have room again.
func planSplit(n int) int {
	if n > block.MaxSamples {
		return n / 2
	}
	return block.MaxSamples
}

// headKeep is how much of a full head stays when it is sealed: an eighth. The
// samples that are out of order by a scrape or a few find room.
const headKeep = 8

// planSeal is how many of n samples of a full head are sealed.
func planSeal(n int) int { return n - n/headKeep }

// planFirst is planSeal for the first head of a series, of an id. Series that begin at
// the same time, as all of a sender do, would have the same number of samples ever
// after: of 63 requests one would find all its heads ready to be sealed and joined with
// two sections, or a block full, and take five times as long. So of n samples up to two
// thirds more stay, by the id: those of a request lie next to each other.
func planFirst(n int, id uint32) int { return planSeal(n) - int(id)%max(n*2/3, 1) }
