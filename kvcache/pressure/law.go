package pressure

import (
	"math"
	"time"
)

// Defaults and bounds of the law.
const (
	MinFloorBytes = 512 << 20 // of the default floor
	floorPercent  = 5         // of the total, for the default floor

	pollFar   = 250 * time.Millisecond // at or above the ceiling
	pollNear  = 50 * time.Millisecond  // below it
	pollUnder = 20 * time.Millisecond  // below the floor
	pollAgain = 5 * time.Millisecond   // after a release: was it enough?

	// A neighbour with four processors, or with huge pages, can take this much
	// a second. The law looks again before half of what is available can go.
	fastestBytesPerSecond = 8 << 30

	// How far the slope is drawn out: the distance to the next look, and the
	// time that reading, releasing and the kernel's own books take. That is
	// more where there is more to release; see Law.lookAhead.
	maxLookAhead = 250 * time.Millisecond
	minLookAhead = 3 * pollUnder

	// maxLossBytes is what the fastest neighbour takes within the least that is
	// looked ahead. No slope counts for more: what else it may take is seen
	// when the release has been made, which is faster than any neighbour.
	maxLossBytes = fastestBytesPerSecond * int64(minLookAhead) / int64(time.Second)

	// slopeTime smooths the slope: MemAvailable jumps by some 30 MiB, which
	// within 20 ms would look like 1.5 GiB/s.
	slopeTime = 100 * time.Millisecond

	// quiet is how long there must be more than the ceiling before the budget grows.
	quiet = 30 * time.Second

	// The kernel puts pages that a processor frees on a list of its own, and
	// counts them when it takes them off again. On Linux 6.18 with two
	// processors and 24 GiB the first 270 to 650 MiB released were missing in
	// MemAvailable, and still were ten seconds later. For creditTime after a
	// release the law believes in up to a 64th of the total unseen. The books of
	// a control group have no such lists.
	creditTime = time.Second
	creditPart = 64

	minGrowBytesPerSecond = 64 << 20
	growPart              = 256 // of the total, each second
)

// Law says how big a budget may be under one limit. Its fields are fixed; what
// changes is in a State.
type Law struct {
	TotalBytes   int64 // of the limit
	FloorBytes   int64 // below this much available, memory is released at once
	CeilingBytes int64 // above this much, and after a quiet time, it is taken again
	UnseenBytes  int64 // of what we released, so much may not be shown as available yet
}

// NewLaw returns the law for a limit of so many bytes. A floor of 0 is the
// default: the larger of MinFloorBytes and 5 % of the total, but at most a
// quarter of it. The ceiling is one and a half times the floor. Of what is
// released nothing is unseen.
func NewLaw(totalBytes, floorBytes int64) Law {
	if floorBytes <= 0 {
		floorBytes = min(max(MinFloorBytes, totalBytes/100*floorPercent), totalBytes/4)
	}
	return Law{TotalBytes: totalBytes, FloorBytes: floorBytes, CeilingBytes: floorBytes + floorBytes/2}
}

// Input is what the law is told at one look.
type Input struct {
	At             time.Time
	AvailableBytes int64 // what anyone could take without harm
	UsedBytes      int64 // what we hold, which the budget bounds
	BudgetBytes    int64 // the budget in force
	Stalled        bool  // tasks are waiting for memory
}

// State is what the law remembers between looks; the zero value is the first.
type State struct {
	at        time.Time
	poolBytes int64   // available and ours, then
	usedBytes int64   // then
	lossRate  float64 // bytes per second that the pool is losing, smoothed

	shortAt time.Time // when there was less than the ceiling last

	creditAt    time.Time // of the last release
	creditBytes int64     // that the kernel may not show yet, then
}

// Decision is the law's answer.
type Decision struct {
	BudgetBytes int64
	Wait        time.Duration // until the next look
}

// Step looks once. It is a pure function.
//
// The pool is what is available and what we hold: only others change it. From
// the pool less the budget follows what will be available once the budget is
// used up, whether or not it is now. Below the floor, less the loss that the
// slope predicts, the budget falls to leave the middle between floor and
// ceiling, and the loss; above the ceiling it grows, after a quiet time; between
// it stays.
//
// The loss counts for no more than lies between the floor and the middle. So a
// neighbour that takes a lot at once, and then stops, gets what it took, and
// what is left is never beyond the ceiling.
func (l Law) Step(s State, in Input) (State, Decision) {
	if released := s.usedBytes - in.UsedBytes; released > 0 && !s.at.IsZero() {
		s.creditBytes = min(s.credit(in.At)+released, l.UnseenBytes)
		s.creditAt = in.At
	}
	pool := in.AvailableBytes + in.UsedBytes + s.credit(in.At)
	if s.at.IsZero() {
		s.shortAt = in.At
	} else if dt := in.At.Sub(s.at).Seconds(); dt > 0 {
		rate := float64(s.poolBytes-pool) / dt
		s.lossRate += (rate - s.lossRate) * (1 - math.Exp(-dt/slopeTime.Seconds()))
		s.lossRate = max(0, s.lossRate) // what some give back says nothing of what others take next
	}
	s.at, s.poolBytes, s.usedBytes = in.At, pool, in.UsedBytes

	middle := (l.FloorBytes + l.CeilingBytes) / 2
	loss := int64(min(s.lossRate*l.lookAhead().Seconds(), float64(maxLossBytes), float64(middle-l.FloorBytes)))
	left := pool - in.BudgetBytes // once the budget is used up
	d := Decision{BudgetBytes: in.BudgetBytes, Wait: pollFar}
	switch {
	case left-loss < l.FloorBytes || in.Stalled && left < l.CeilingBytes:
		s.shortAt = in.At
		d.BudgetBytes = min(in.BudgetBytes, max(0, pool-middle-loss))
		d.Wait = pollUnder
		if d.BudgetBytes < in.BudgetBytes {
			d.Wait = pollAgain
		}
	case left-loss < l.CeilingBytes || in.Stalled:
		s.shortAt = in.At
		d.Wait = pollNear
	case in.At.Sub(s.shortAt) >= quiet:
		rate := max(minGrowBytesPerSecond, l.TotalBytes/growPart)
		d.BudgetBytes += min(left-l.CeilingBytes, int64(float64(rate)*pollFar.Seconds()))
	}
	reach := time.Duration(float64(in.AvailableBytes) / 2 / fastestBytesPerSecond * float64(time.Second))
	d.Wait = min(d.Wait, max(pollUnder, reach))
	return s, d
}

// lookAhead is the time in which the fastest neighbour takes the ceiling,
// within bounds. What the slope makes of it is released beyond what turns out
// to be needed, each time that a neighbour stops as suddenly as it began.
func (l Law) lookAhead() time.Duration {
	d := time.Duration(float64(l.CeilingBytes) / fastestBytesPerSecond * float64(time.Second))
	return min(max(d, minLookAhead), maxLookAhead)
}

// credit is how much of what was released the kernel may not show yet.
func (s *State) credit(at time.Time) int64 {
	left := creditTime - at.Sub(s.creditAt)
	if left <= 0 || left > creditTime {
		return 0
	}
	return int64(float64(s.creditBytes) * left.Seconds() / creditTime.Seconds())
}

// Initial is the budget to begin with: all that leaves the ceiling available.
func (l Law) Initial(availableBytes, usedBytes int64) int64 {
	return max(0, availableBytes+usedBytes-l.CeilingBytes)
}
