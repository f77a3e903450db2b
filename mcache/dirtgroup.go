package mcache

import "mcached/mcache/block"

// A pass looks at all that is dirty to find what is due, eight times while a point
// grows old. So series are summed up by groups of neighbours, which became dirty
// together as a rule, and a pass skips the groups of which nothing is due.

// dirtGroup is what is known of groupSeries series with consecutive ids, if none of them
// is on standby; ledger.groups[id/groupSeries].
type dirtGroup struct {
	oldest uint32 // tick; nothing came before it that is not in flight; 0: nothing is dirty
	long   bool   // some may have as many dirty points as fill a sealed block
}

// groupSeries are few enough that not many are looked at in vain, and together no more
// than 8 cache lines.
const groupSeries = 32

// add counts a series in.
func (g *dirtGroup) add(since, points uint32) {
	g.oldest = older(g.oldest, since)
	g.long = g.long || points >= block.MaxSamples
}

// groupLocked is the group of a series.
func (l *ledger) groupLocked(id uint32) *dirtGroup { return l.groups.At(id / groupSeries) }

// addLocked counts points that became dirty, of which a series has some: its since is set.
func (l *ledger) addLocked(id uint32, d *dirt, points int) {
	d.points += uint32(points)
	l.dirty += int64(points)
	if d.points >= block.MaxSamples {
		l.groupLocked(id).long = true
	}
}

// keepLocked is told of a series that findDueLocked found, and that is dirty still.
func (l *ledger) keepLocked(id uint32) {
	if d := l.dirt.At(id); d.since != 0 {
		l.groupLocked(id).add(d.since, d.points)
	}
}
