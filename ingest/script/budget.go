package script

import (
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"

	lua "github.com/yuin/gopher-lua"
)

const (
	// lookSteps is how many steps go by between two looks at the clock: some 30 µs.
	lookSteps = 1024
	// stepBytes is what a step may add to tables: an element and its share of
	// the growth of what it is in.
	stepBytes = 64
	// lookBytes is how much is counted between two looks at the heap.
	lookBytes = 1 << 20
)

// budget is what is left of a script's bounds. It is the context that the
// interpreter asks before each instruction. It belongs to the goroutine that runs
// the script, but for killed.
type budget struct {
	o      *Options
	killed *atomic.Bool // by SCRIPT KILL

	steps, next int64 // taken; of the next look
	end         time.Time

	bytes    int64 // counted since the last look at the heap
	baseline int64 // of the heap when the script began, 0: not known yet
	quiet    int64 // no collection before the heap is so large

	by     End    // why it is used up
	why    string // likewise, in the words of an error; "" while it is not
	spent  chan struct{}
	sample [1]metrics.Sample
}

func newBudget(o *Options, killed *atomic.Bool) *budget {
	b := &budget{o: o, killed: killed, next: lookSteps, end: o.Now().Add(o.Timeout)}
	b.sample[0].Name = "/memory/classes/heap/objects:bytes"
	return b
}

// Done implements context.Context: it takes a step. The answer is closed when the
// budget is used up, and nil before.
func (b *budget) Done() <-chan struct{} {
	if b.steps++; b.steps < b.next {
		return nil
	}
	b.look()
	return b.spent
}

// Err implements context.Context.
func (b *budget) Err() error {
	if b.why == "" {
		return nil
	}
	return ended(b.why)
}

// Deadline implements context.Context.
func (b *budget) Deadline() (time.Time, bool) { return b.end, true }

// Value implements context.Context.
func (b *budget) Value(any) any { return nil }

var _ context.Context = (*budget)(nil)

// ended is the error of a script whose budget is used up.
type ended string

func (e ended) Error() string { return string(e) }

// End says what ended a script before its end.
type End uint8

const (
	NotEnded      End = iota // it returned, or raised an error of its own
	ByTime                   // Options.Timeout
	ByMemory                 // Options.MaxBytes
	ByInstruction            // Options.MaxSteps
	ByKill                   // SCRIPT KILL
	ByFailure                // of the interpreter

	Ends // how many there are
)

// String is the reason as a metric has it.
func (e End) String() string {
	return [Ends]string{"none", "time", "memory", "instructions", "kill", "failure"}[e]
}

// finish uses the budget up.
func (b *budget) finish(by End, why string) {
	if b.why == "" {
		b.by, b.why, b.spent = by, why, make(chan struct{})
		close(b.spent)
	}
	b.next = 0
}

// look compares with the bounds.
func (b *budget) look() {
	b.bytes += (b.steps - (b.next - lookSteps)) * stepBytes
	b.next = b.steps + lookSteps
	switch {
	case b.why != "":
		b.next = 0
	case b.killed.Load():
		b.finish(ByKill, "ERR Script killed by user with SCRIPT KILL.")
	case b.steps > b.o.MaxSteps:
		b.finish(ByInstruction, fmt.Sprintf("ERR script ended after %d instructions%s; what it has written stays", b.o.MaxSteps, b.o.Flags["MaxSteps"]))
	case !b.o.Now().Before(b.end):
		b.finish(ByTime, fmt.Sprintf("ERR script ended after %v%s; what it has written stays", b.o.Timeout, b.o.Flags["Timeout"]))
	case b.bytes >= lookBytes:
		b.lookAtHeap()
	}
}

func (b *budget) heap() int64 {
	metrics.Read(b.sample[:])
	return int64(b.sample[0].Value.Uint64())
}

func (b *budget) lookAtHeap() {
	heap := b.heap()
	if b.baseline == 0 {
		b.baseline = max(heap-b.bytes, 1)
	}
	b.bytes = 0
	if heap-b.baseline <= b.o.MaxBytes || heap < b.quiet {
		return
	}
	runtime.GC()
	if heap = b.heap(); heap-b.baseline > b.o.MaxBytes {
		b.tooLarge()
		return
	}
	b.quiet = heap + b.o.MaxBytes/2
}

func (b *budget) tooLarge() {
	b.finish(ByMemory, fmt.Sprintf("ERR script ended because it takes more than %d bytes of memory%s; what it has written stays", b.o.MaxBytes, b.o.Flags["MaxBytes"]))
}

// take counts n steps of work that is done in one instruction, and ends the
// script if there are not so many left.
func (b *budget) take(l *lua.LState, n int) {
	if b.steps += int64(n); b.steps >= b.next {
		b.look()
		b.check(l)
	}
}

// grow counts n bytes that are about to be made, and ends the script if they are
// too many.
func (b *budget) grow(l *lua.LState, n int) {
	if b.bytes += int64(n); b.bytes < lookBytes {
		return
	}
	if int64(n) > b.o.MaxBytes {
		b.tooLarge()
	} else if b.why == "" {
		b.lookAtHeap()
		b.bytes = int64(n) // they are not there yet
	}
	b.check(l)
}

func (b *budget) check(l *lua.LState) {
	if b.why != "" {
		l.RaiseError("%s", b.why)
	}
}
