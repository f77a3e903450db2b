package mcache

import (
	"unsafe"

	"mcached/mcache/block"
)

// scratch is what the calls on a shard use while they hold its lock, so that
// nothing is allocated. But for what is said to be remembered, a call finds
// nothing in it that is of use.
type scratch struct {
	codec             block.Codec
	block1            [block.MaxSamples]Sample
	samples, samples2 []Sample
	joined            []Sample
	encoded, bytes1   []byte
	entries           []dirEntry
	parts             gathered
	labelText         []byte // of appendLabelsLocked: names and values
	labelEnds         []int  // of each in that

	// Of findAllLocked.
	found   []uint32
	slots   []unsafe.Pointer // in heads, where the next samples go
	full    []uint32         // of found, those whose heads are full
	touched uint64           // keeps what findAllLocked reads from being optimised away

	// Remembered from call to call: guesses, that cost time if they are wrong.
	guessed         uint32   // the series that is taken to be written next
	pairIDs, before []uint32 // of the series made last, and of the one before
	recent          [recentPairs]recentPair
}

func newScratch() scratch {
	return scratch{
		samples:  make([]Sample, 0, block.MaxSamples),
		samples2: make([]Sample, 0, block.MaxSamples),
		joined:   make([]Sample, 0, 2*block.MaxSamples),
		encoded:  make([]byte, 0, block.MaxBytes),
		bytes1:   make([]byte, 0, block.MaxBytes+block.Slack),
	}
}

// recentPairs is how many pairs are known by the hash of their value alone,
// which is as good as the value: see Fingerprint. Most of what tells one series
// from the one before is the values of a few labels, again and again.
const recentPairs = 64

// recentPair is a pair that was used not long ago; with a hash of zero it is none.
type recentPair struct {
	value Hash
	name  uint32
	pair  uint32
}
