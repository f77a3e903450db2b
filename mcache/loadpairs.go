package mcache

import "slices"

// What the labels of a batch are in the cache: hashes, and in each shard pairs.

// labelHash is the hashes of a label.
type labelHash struct{ name, value Hash }

// hashLabels hashes the labels of the batch.
func (l *loader) hashLabels() {
	l.hashes, l.sums = l.hashes[:0], l.sums[:0]
	for i := range l.known.of {
		y := &l.known.of[i]
		h := labelHash{value: l.cache.HashString(y.Value)}
		if int(y.name) < i {
			h.name = l.hashes[y.name].name
		} else {
			h.name = l.cache.HashString(y.Name)
		}
		var sum Fingerprint
		sum.Add(h.name, h.value)
		l.hashes, l.sums = append(l.hashes, h), append(l.sums, sum)
	}
}

// shardPairs are the pairs that the labels of a batch have in one edition of the index of
// the shard that is written, as far as they were asked for.
type shardPairs struct {
	edition uint32
	bucket  *bucket
	own     uint32   // the pair of bucket
	of      []uint32 // by number of the label; noID if not known
}

// forget leaves n labels whose pairs are not known.
func (p *shardPairs) forget(n int) {
	p.bucket, p.of = nil, slices.Grow(p.of[:0], n)[:n]
	for i := range p.of {
		p.of[i] = noID
	}
}

// pairsLocked sets s.pairIDs to the pairs of x, and makes those that are new.
func (l *loader) pairsLocked(s *shard, b *bucket, x *savedSeries) (err error) {
	p := &l.pairs
	if p.edition != s.editions {
		p.forget(len(p.of))
		p.edition = s.editions
	}
	if p.bucket != b {
		if p.own, err = s.pairLocked(Label{bucketName, b.name}, labelHash{s.cache.HashString(bucketName), s.cache.HashString(b.name)}); err != nil {
			return err
		}
		p.bucket = b
	}
	labels := l.numbersOf(x)
	pairs := append(slices.Grow(s.pairIDs[:0], len(labels)+1), p.own)
	for _, k := range labels {
		pair := p.of[k]
		if pair == noID {
			y := &l.known.of[k].Label
			if y.Value == "" { // the key of a series without labels
				continue
			}
			if pair, err = s.pairLocked(*y, l.hashes[k]); err != nil {
				return err
			}
			p.of[k] = pair
		}
		pairs = append(pairs, pair)
	}
	s.pairIDs = pairs
	return nil
}
