package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"mcached/kvcache"
	"mcached/kvcache/pressure"
)

// What the daemon holds is of two kinds. Everything cached, indexes included,
// is in d.memory, under the budget. Requests, answers and the PromQL engine's
// work are on the Go heap, under a soft limit of its own: the collector works
// harder near it, and no cached byte is weighed against it.

// openMemory makes the memory with the budget to begin with, and the
// controller that changes it later.
func (d *daemon) openMemory() error {
	var err error
	d.pressure, err = pressure.New(pressure.Options{
		FixedBytes:         int64(d.config.memorySize),
		KeepAvailableBytes: int64(d.config.memoryKeep),
		Used: func() int64 {
			if d.memory == nil { // the first reading is taken before there is any
				return 0
			}
			return d.memory.Used()
		},
		SetBudget: func(n int64) { d.memory.SetBudget(max(n, d.leastBudget())) },
		Logger:    d.log,
	})
	if err != nil {
		return err
	}
	d.memory, err = kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: max(d.pressure.Initial(), minMemoryBytes)})
	if err != nil {
		return err
	}
	if d.pressure.Initial() < minMemoryBytes {
		d.log.Warn("This machine has no memory to spare beyond what is kept available; the cache begins at its minimum size.",
			"budget_bytes", d.memory.Budget(), "keep_available", d.config.flags["memory.keep-available"])
	}
	d.ownHeapLimit = debug.SetMemoryLimit(-1) // GOMEMLIMIT, which the runtime has read
	d.heapLimit.Store(d.limitHeap(d.config))
	paceCollectionsOnce()
	d.log.Info("Memory.", "automatic", d.config.memorySize == 0, "budget_bytes", d.memory.Budget(), "heap_limit_bytes", d.heapLimit.Load())
	return nil
}

// leastRegions for each shard of the metric cache: one for heads, one for partial
// blocks, one for full ones, one for directories, one for what others hold. With
// less, the shards take turns, and what one writes another drops.
const leastRegions = 5

// leastBudget is what the budget does not fall below, however little the
// machine has to spare. The numbers of regions and of shards were chosen for the
// first budget, 128 regions a shard or a single shard, so this is a 25th of that at
// the most, or minMemoryBytes.
func (d *daemon) leastBudget() int64 {
	if d.metrics == nil {
		return minMemoryBytes
	}
	return max(minMemoryBytes, int64(leastRegions*d.metrics.Shards()*d.memory.RegionBytes()))
}

// The heap's limit when nobody says otherwise: an eighth of what there is, be it
// the machine's or a control group's. A request of the largest permitted size
// and a heavy query fit the least; more than the most is a query that should
// have been refused.
const (
	heapShare    = 8
	minHeapLimit = 256 << 20
	maxHeapLimit = 2 << 30
)

// limitHeap sets the soft limit of the Go heap as a command line has it, and
// returns it.
func (d *daemon) limitHeap(c *config) int64 {
	if n := int64(c.memoryHeap); n != 0 {
		debug.SetMemoryLimit(n)
		return n
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		debug.SetMemoryLimit(d.ownHeapLimit)
		return d.ownHeapLimit
	}
	total, err := pressure.TotalBytes(nil)
	if err != nil {
		d.log.Warn("The size of the machine's memory cannot be read; the heap limit is at its minimum.", "err", err)
	}
	n := heapLimitFor(total, int64(c.memorySize))
	debug.SetMemoryLimit(n)
	return n
}

// heapLimitFor is the heap's limit where there are total bytes, of which fixed
// are for what is cached, if that does not follow the machine. Half of the rest
// is left to what is neither: stacks, buffers of the kernel, neighbours.
func heapLimitFor(total, fixed int64) int64 {
	n := min(max(total/heapShare, minHeapLimit), maxHeapLimit)
	if fixed > 0 && total > 0 {
		n = max(min(n, (total-fixed)/2), minHeapBytes)
	}
	return n
}

// setBudget is CONFIG SET maxmemory, and a reload of --memory.size, where the size
// is fixed.
func (d *daemon) setBudget(n int64) error {
	if least := d.leastBudget(); n < least {
		return fmt.Errorf("the least size is %d bytes, got %d", least, n)
	}
	d.memory.SetBudget(n)
	return nil
}
