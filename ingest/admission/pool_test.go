package admission

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func newPool(t *testing.T, o Options) *Pool {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func open(p *Pool, k Kind) *Lease {
	l := new(Lease)
	l.Open(p, k, nil)
	return l
}

func refusal(t *testing.T, err error) *Refusal {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) {
		t.Fatalf("not refused: %v", err)
	}
	return r
}

const mib = 1 << 20

func TestWritesHaveWhatOthersCannot(t *testing.T) {
	for _, input := range []int64{0, 32 * mib} { // by default, and as much as may be
		testWritesHaveWhatOthersCannot(t, Options{MaxBytes: 64 * mib, MaxInputBytes: input})
	}
}

func testWritesHaveWhatOthersCannot(t *testing.T, o Options) {
	p := newPool(t, o)
	var all []*Lease
	for _, k := range []Kind{Read, Input, Stranger} {
		for n := 0; ; n++ {
			l := open(p, k)
			if err := l.Try(2 * mib); err != nil {
				refusal(t, err)
				break
			}
			if all = append(all, l); n > 100 {
				t.Fatalf("%v has no bound", k)
			}
		}
	}
	w := open(p, Write)
	if err := w.Try(4 * mib); err != nil {
		t.Errorf("nothing was left to writes: %v", err)
	}
	s := p.Stats()
	sum := int64(0)
	for _, k := range Kinds {
		if sum += s.Bytes[k]; s.Bytes[k] > s.Limits[k] || k != Write && s.RefusedBytes[k] != 1 {
			t.Errorf("%v: %+v", k, s)
		}
	}
	if sum > 64*mib {
		t.Errorf("%d bytes are held", sum)
	}
	for _, l := range append(all, w) {
		l.Release()
		l.Release()
	}
	if s := p.Stats(); s.Bytes != [kinds]int64{} {
		t.Errorf("%+v", s)
	}
}

// Large writes leave room to small requests of all kinds, and a small write
// does not wait behind a large one for which there is no room.
func TestLargeWritesLeaveRoom(t *testing.T) {
	p := newPool(t, Options{MaxBytes: 64 * mib, MaxWait: time.Hour})
	var large []*Lease
	for {
		l := open(p, Write)
		if l.Try(2*mib) != nil {
			break
		}
		large = append(large, l)
	}
	if len(large) < 20 {
		t.Errorf("only %d large writes were let in", len(large))
	}
	waits := make(chan error)
	behind := open(p, Write)
	go func() { waits <- behind.Take(t.Context(), 2*mib) }()
	for p.Stats().Waiting == 0 {
		runtime.Gosched()
	}
	for _, k := range []Kind{Write, Read, Input} {
		l := open(p, k)
		if err := l.Take(t.Context(), smallInputBytes); err != nil {
			t.Errorf("a small one of %v was refused: %v", k, err)
		}
		l.Release()
	}
	select {
	case err := <-waits:
		t.Fatalf("there was room for a large write: %v", err)
	default:
	}
	large[0].Release()
	if err := <-waits; err != nil {
		t.Error(err)
	}
}

// One write that is larger than what is not kept for small ones is let in when
// it is alone.
func TestLargestWriteIsLetIn(t *testing.T) {
	p := newPool(t, Options{MaxBytes: 16 * mib})
	if err := open(p, Write).Try(16 * mib); err != nil {
		t.Error(err)
	}
}

// A small write that waits goes before a large one that still has no room.
func TestSmallWritesOvertake(t *testing.T) {
	p := newPool(t, Options{MaxBytes: 16 * mib, MaxWait: time.Hour})
	all := open(p, Write)
	if err := all.Try(16 * mib); err != nil {
		t.Fatal(err)
	}
	wait := func(n int64) chan error {
		done, before := make(chan error, 1), p.Stats().Waiting
		l := open(p, Write)
		go func() { done <- l.Take(t.Context(), n) }()
		for p.Stats().Waiting == before {
			runtime.Gosched()
		}
		return done
	}
	large, small := wait(4*mib), wait(mib/2)
	all.Keep(15 * mib)
	if err := <-small; err != nil {
		t.Error(err)
	}
	select {
	case err := <-large:
		t.Fatalf("there was room for a large write: %v", err)
	default:
	}
	all.Release()
	if err := <-large; err != nil {
		t.Error(err)
	}
}

func TestSmallReadsHaveAReserve(t *testing.T) {
	p := newPool(t, Options{MaxBytes: 16 * mib})
	if err := open(p, Read).Try(8 * mib); err != nil {
		t.Fatal(err)
	}
	small := open(p, Read)
	if err := small.Try(smallBytes); err != nil {
		t.Errorf("a small read was refused: %v", err)
	}
	refusal(t, small.Try(1))
	bulk := open(p, Read)
	bulk.Bulk()
	refusal(t, bulk.Try(1))
}

// Halves of large bodies neither keep ordinary ones out nor writes from being worked on.
func TestSmallInputsHaveAReserve(t *testing.T) {
	p := newPool(t, Options{MaxBytes: 16 * mib})
	if err := open(p, Input).Try(4 * mib); err != nil {
		t.Fatal(err)
	}
	refusal(t, open(p, Input).Try(smallInputBytes+1))
	small := open(p, Input)
	if err := small.Try(smallInputBytes); err != nil {
		t.Errorf("a small input was refused: %v", err)
	}
	refusal(t, small.Try(1))
	n := 0
	for ; n < 100 && open(p, Input).Try(smallInputBytes) == nil; n++ {
	}
	if n == 100 || n == 0 {
		t.Errorf("%d more small inputs were let in", n)
	}
	if err := open(p, Read).Try(8 * mib); err != nil {
		t.Fatal(err)
	}
	if err := open(p, Stranger).Try(mib); err != nil {
		t.Fatal(err)
	}
	if err := open(p, Write).Try(16 * mib / 16); err != nil {
		t.Errorf("nothing is left to writes: %v", err)
	}
}

// Limits that change hold for what is asked for from then on; who waits is let
// in when they grow.
func TestLimitsCanChange(t *testing.T) {
	p := newPool(t, Options{MaxBytes: 16 * mib, MaxRequests: 2, MaxWait: time.Hour})
	held := open(p, Write)
	if err := held.Try(16 * mib); err != nil {
		t.Fatal(err)
	}
	waits := make(chan error)
	go func() { waits <- open(p, Write).Take(t.Context(), mib) }()
	for p.Stats().Waiting == 0 {
		runtime.Gosched()
	}
	if err := p.SetLimits(Options{MaxBytes: 32 * mib, MaxRequests: 1}); err != nil {
		t.Fatal(err)
	}
	if err := <-waits; err != nil {
		t.Errorf("it waited, and was refused: %v", err)
	}
	if err := open(p, Write).Begin(); err != nil {
		t.Error(err)
	}
	refusal(t, open(p, Write).Begin())
	if err := p.SetLimits(Options{MaxBytes: 8 * mib}); err != nil {
		t.Fatal(err)
	}
	refusal(t, open(p, Write).Try(1)) // more is held than may be
	if n := p.Limit(Read); n != 4*mib {
		t.Errorf("reads may have %d", n)
	}
	if err := p.SetLimits(Options{MaxBytes: 1}); err == nil || p.Limit(Read) != 4*mib {
		t.Errorf("a limit of a byte is taken: %v", err)
	}
	held.Release()
	if err := open(p, Write).Try(mib); err != nil {
		t.Error(err)
	}
}

func TestRefusalsSayWhatAndWhen(t *testing.T) {
	p := newPool(t, Options{MaxBytes: 16 * mib, BytesSetting: "--max", RetryAfter: time.Second})
	l := open(p, Read)
	r := refusal(t, l.Try(9*mib))
	if _, ok := r.RetryAfter(); ok || !strings.Contains(r.Error(), "needs 9437184 bytes") || !strings.Contains(r.Error(), "raise --max") {
		t.Errorf("%v", r)
	}
	if err := l.Try(8 * mib); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		r = refusal(t, open(p, Read).Try(mib))
	}
	if after, ok := r.RetryAfter(); !ok || after != 4*time.Second || !strings.Contains(r.Error(), "reads have 8388608 of the 8388608 that --max leaves them") {
		t.Errorf("%v, %v", r, after)
	}
}

func TestRequestsAreCounted(t *testing.T) {
	p := newPool(t, Options{MaxRequests: 2, RequestsSetting: "--requests"})
	var all [3]*Lease
	for i := range all {
		all[i] = open(p, Input)
		if err := all[i].Try(100); err != nil {
			t.Fatal(err)
		}
	}
	if p.Stats().Requests != 0 {
		t.Error("input counts as requests")
	}
	for _, l := range all[:2] {
		if err := l.Begin(); err != nil {
			t.Fatal(err)
		}
	}
	if r := refusal(t, all[2].Begin()); !strings.Contains(r.Error(), "2 of the 2 that --requests") || r.After == 0 {
		t.Error(r)
	}
	if s := p.Stats(); s.Bytes[Write] != 200 || s.Bytes[Input] != 100 || s.Requests != 2 || s.Admitted != 2 || s.RefusedRequests != 1 {
		t.Errorf("%+v", s)
	}
	all[0].Release()
	if err := all[2].Begin(); err != nil {
		t.Error(err)
	}
}

func TestTakeWaitsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, Options{MaxBytes: 16 * mib, MaxWait: time.Second})
		first := open(p, Read)
		if err := first.Try(8 * mib); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []int
		var done sync.WaitGroup
		for i, n := range []int64{4, 3, 2} {
			done.Go(func() {
				l := open(p, Read)
				err := l.Take(t.Context(), n*mib)
				mu.Lock()
				if order = append(order, i); i < 2 && err != nil {
					t.Error(i, err)
				}
				if i == 2 {
					refusal(t, err)
				}
				mu.Unlock()
			})
			synctest.Wait()
		}
		if s := p.Stats(); s.Waiting != 3 {
			t.Errorf("%+v", s)
		}
		refusal(t, open(p, Read).Try(mib)) // what does not wait is refused
		time.Sleep(time.Second / 2)
		first.Keep(3 * mib / 2)
		synctest.Wait()
		first.Keep(mib)
		done.Wait()
		if fmt.Sprint(order) != "[0 1 2]" {
			t.Errorf("served in the order %v", order)
		}
		if s := p.Stats(); s.Bytes[Read] != 8*mib || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestTakeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, Options{MaxBytes: 16 * mib, MaxWait: time.Hour})
		if err := open(p, Read).Try(8 * mib); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		refusal(t, open(p, Read).Take(ctx, mib))
		if s := p.Stats(); s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestStalledInputMakesWay(t *testing.T) {
	now := time.Unix(1000, 0)
	p := newPool(t, Options{MaxBytes: 16 * mib, Now: func() time.Time { return now }})
	var cut []int
	var all [4]Lease
	for i := range all {
		all[i].Open(p, Input, func() { cut = append(cut, i) })
		if err := all[i].Try(mib); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Millisecond)
	}
	refusal(t, open(p, Input).Try(mib)) // the rest may be on its way
	now = now.Add(graceTime)
	if err := all[0].Try(mib / 2); err != nil { // makes way itself: the second has to
		t.Fatal(err)
	}
	if fmt.Sprint(cut) != "[1]" {
		t.Fatalf("cut off %v", cut)
	}
	if err := open(p, Input).Try(3 * mib / 2); err != nil {
		t.Error(err)
	}
	if fmt.Sprint(cut) != "[1 2]" {
		t.Errorf("cut off %v", cut)
	}
	refusal(t, all[1].Try(1))
	refusal(t, all[2].Begin())
	all[1].Release()
	if s := p.Stats(); s.Cut[Input] != 2 || s.Bytes[Input] != 4*mib {
		t.Errorf("%+v", s)
	}
}

func TestNilPoolAdmitsEverything(t *testing.T) {
	var l Lease
	for _, err := range []error{l.Try(1 << 50), l.Take(t.Context(), 1<<50), l.Begin()} {
		if err != nil {
			t.Error(err)
		}
	}
	l.Keep(0)
	l.Release()
	if l.Held() != 0 {
		t.Error("it holds something")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{MaxBytes: -1}, {MaxInputBytes: -1}, {MaxRequests: -1}, {MaxWait: -1}, {RetryAfter: -1}, {MaxBytes: 10}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// TestPoolModel holds the pool to its invariants under many hands.
func TestPoolModel(t *testing.T) {
	p := newPool(t, Options{MaxBytes: 1 << 20, MaxWait: time.Millisecond, MaxRequests: 8})
	var refused, granted, cut sync.Map
	var hands sync.WaitGroup
	for hand := range 8 {
		hands.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(hand)))
			// Each holds more than there is, however the hands take turns.
			var held []*Lease
			for range 2000 {
				k := Kinds[r.IntN(len(Kinds))]
				l := new(Lease)
				l.Open(p, k, func() { cut.Store(hand, true) })
				for range r.IntN(4) {
					var err error
					if n := r.Int64N(256 << 10); r.IntN(8) == 0 {
						err = l.Take(t.Context(), n)
					} else {
						err = l.Try(n)
					}
					if err != nil {
						refused.Store(k, true)
					} else {
						granted.Store(k, true)
					}
				}
				if k == Input && r.IntN(2) == 0 {
					_ = l.Begin()
				}
				if r.IntN(2) == 0 {
					l.Keep(r.Int64N(1 << 10))
				}
				s, sum := p.Stats(), int64(0)
				for _, k := range Kinds {
					if sum += s.Bytes[k]; s.Bytes[k] < 0 || s.Bytes[k] > s.Limits[k]+p.small[k] {
						t.Errorf("%v: %+v", k, s)
					}
				}
				if sum > 1<<20 || s.Requests > 8 {
					t.Errorf("%+v", s)
				}
				if held = append(held, l); len(held) > 8 {
					at := r.IntN(len(held))
					held[at].Release()
					held = slices.Delete(held, at, at+1)
				}
			}
			for _, l := range held {
				l.Release()
			}
		})
	}
	hands.Wait()
	if s := p.Stats(); s.Bytes != [kinds]int64{} || s.Requests != 0 || s.Waiting != 0 {
		t.Errorf("left over: %+v", s)
	}
	for _, k := range Kinds {
		if _, ok := refused.Load(k); !ok {
			t.Errorf("%v was never refused", k)
		}
		if _, ok := granted.Load(k); !ok {
			t.Errorf("%v was never granted", k)
		}
	}
}

func BenchmarkLease(b *testing.B) {
	p, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var l Lease
	l.Open(p, Input, func() {})
	for b.Loop() {
		if err := l.Try(16 << 10); err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}
