package query

import (
	"context"
	"runtime"
	"slices"
	"sync"
)

// crew shares the series of a plan among workers. Each takes a batch, computes
// its rows by itself, and hands them on when all batches before it have been:
// sums of floats depend on their order, and the engine's is that of the series.
type crew struct {
	series  []series
	batch   int // series in one
	hire    func() *worker
	dismiss func(*worker)
	// handOver takes the row of a series, which has n results of so many
	// samples. It is called in the order of series, by one worker at a time.
	handOver func(s *series, row []float64, n, samples int) error
	// digests are those of the series, if they are wanted.
	digests []digest

	mu      sync.Mutex
	passed  sync.Cond // a turn has ended
	next    int       // batch that nobody has taken
	turn    int       // batch that may be handed over
	samples int       // decoded by workers that have ended
	err     error     // the first, in the order of series: all end
	fault   any       // what a worker panicked with
}

// result counts what is in a row, and what was decoded for it.
type result struct{ n, samples int }

// maxWorkers bounds the processors that one query takes: there are other
// queries, and those who write.
const maxWorkers = 4

// batchValues is about how many values a batch has: 128 KiB of them, some
// 300 µs of work. What a turn costs, and that another processor has the sums in
// its cache, makes it 7 to 10 % more work in all; with a quarter of this, 25 %.
const batchValues = 16 << 10

// minBatches is how many a worker should find: below, a second one takes
// longer to begin than the first to end.
const minBatches = 4

// run computes n steps of all series and returns how many samples that took.
func (c *crew) run(ctx context.Context, n int) (samples int, err error) {
	c.passed.L = &c.mu
	c.batch = max(1, batchValues/n)
	batches := (len(c.series) + c.batch - 1) / c.batch
	var others sync.WaitGroup
	for range min(maxWorkers, runtime.GOMAXPROCS(0), batches/minBatches) - 1 {
		others.Go(func() { c.work(ctx, n) })
	}
	c.work(ctx, n)
	others.Wait()
	if c.fault != nil {
		panic(c.fault) // where those who asked can see it
	}
	return c.samples, c.err
}

// work computes batches until there are no more.
func (c *crew) work(ctx context.Context, n int) {
	w := c.hire()
	w.digesting = c.digests != nil
	defer func() {
		fault := recover()
		if fault == nil {
			defer c.dismiss(w)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.samples += w.samples
		if fault != nil {
			c.fault, c.err = fault, errUnplanned // any error ends the others
			c.passed.Broadcast()
		}
	}()
	w.rows = slices.Grow(w.rows[:0], min(c.batch, len(c.series))*n)
	rows, results := w.rows[:cap(w.rows)], make([]result, 0, min(c.batch, len(c.series)))
	for {
		c.mu.Lock()
		b := c.next
		c.next++
		c.mu.Unlock()
		first := b * c.batch
		if first >= len(c.series) {
			return
		}
		batch := c.series[first:min(first+c.batch, len(c.series))]
		err := ctx.Err()
		results = results[:0]
		for i := 0; i < len(batch) && err == nil; i++ {
			if !w.decode(&batch[i]) {
				err = errUnplanned
				break
			}
			if err = w.it.err; err != nil { // there was no room for its samples
				break
			}
			if w.digesting {
				c.digests[first+i] = w.digest
			}
			results = append(results, result{w.compute(rows[i*n : (i+1)*n]), len(w.times)})
		}
		if !c.await(b) {
			return
		}
		for i, k := range results {
			if e := c.handOver(&batch[i], rows[i*n:(i+1)*n], k.n, k.samples); e != nil {
				err = e
				break
			}
		}
		if !c.pass(err) {
			return
		}
	}
}

// await waits for the turn of a batch. False means that there was an error before.
func (c *crew) await(batch int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.turn != batch && c.err == nil {
		c.passed.Wait()
	}
	return c.err == nil
}

// pass ends the turn of a batch. It returns false if all are to end.
func (c *crew) pass(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && c.err == nil {
		c.err = err
	}
	c.turn++
	c.passed.Broadcast()
	return c.err == nil
}
