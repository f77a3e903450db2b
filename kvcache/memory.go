package kvcache

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Limits of the layout. A Ref has 19 bits for a place inside a region, 20 for
// the region and 25 for its epoch.
const (
	MinRegionBytes = 4 << 10 // one page
	MaxRegionBytes = 4 << 20 // 2^19 units of 8 bytes

	unitBytes  = 8
	unitBits   = 19
	regionBits = 20
	epochBits  = 25

	maxRegions = 1<<regionBits - 1 // the last number is noRegion
	maxEpoch   = 1<<epochBits - 1
)

// Region is the number of a piece of RegionBytes in a Memory.
type Region uint32

const noRegion Region = 1<<32 - 1

// Class says how soon a region goes when memory has to be given back.
type Class uint8

const (
	// Log regions are written once, in order of time. The oldest of them, of
	// whichever owner, is the first to go.
	Log Class = iota
	// Hot regions hold arrays that are still written. They go after every Log region.
	Hot
	// Fixed regions belong to an index, without which all else that their owner
	// holds is lost. They go only with the whole owner, by DropAll.
	Fixed
	classes
)

var (
	// ErrNoMemory says that the budget, the reserved address space or the
	// kernel has no more. Callers drop something of their own, or call
	// Memory.Evict without holding a lock, and try again.
	ErrNoMemory = errors.New("kvcache: no memory within the budget")
	// ErrRegionBytes says that the region size is not one the layout can hold.
	ErrRegionBytes = errors.New("kvcache: region size must be a power of two")
)

// An Owner holds regions of a Memory, usually one shard of a cache. Memory
// calls it with none of its own locks held, so an Owner may take its own.
type Owner interface {
	// DropRegion forgets everything in r, of class Log or Hot, in a time that does not depend on
	// how much that is, and gives r back by Tables.Drop. It reports false and
	// does nothing if r has changed hands since, which Tables.Owns tells, or
	// is pinned: it is then not asked for again before Memory.Unpin.
	DropRegion(r Region, epoch uint32) bool
	// DropAll forgets everything, spans included, unless something is pinned.
	// It is the last resort, when the budget is smaller than the indexes.
	DropAll()
}

// ager is an Owner that keeps part of a region that goes because it is the
// oldest, not because the machine needs its memory. AgeRegion may take as long
// as that takes; otherwise it is DropRegion.
type ager interface {
	AgeRegion(r Region, epoch uint32) bool
}

// MemoryOptions configure a Memory; the zero value of a field means its default.
type MemoryOptions struct {
	// BudgetBytes bounds regions and spans together. Required.
	BudgetBytes int64
	// RegionBytes is a power of two from MinRegionBytes to MaxRegionBytes. It
	// bounds an entry. Default: 256 KiB or less for a budget below 256 MiB,
	// 512 KiB up to 2 GiB, 1 MiB up to 32 GiB, 2 MiB up to 64 GiB, 4 MiB above.
	RegionBytes int
	// ReserveBytes of address space bound what the budget can grow to.
	// Default: twice the budget, or the machine's memory if that is more.
	ReserveBytes int64
	// HugePages asks the kernel to back all regions with 2 MiB pages. Only of
	// use where RegionBytes is at least that. By default the regions beyond the
	// first 4 GiB have them.
	HugePages bool
	// ReadyRegions is how many regions are kept ready at most, once a 128th of
	// what is in use is as many. Default 8, negative none.
	ReadyRegions int
}

// Memory is a reservation of address space, carved into regions of one size,
// and the one budget for all that is held outside the Go heap.
//
// Memory is safe for concurrent use. Its lock is a leaf: it is taken while
// owners hold theirs, never the other way round.
type Memory struct {
	base        unsafe.Pointer // of region 0, aligned to regionBytes
	mapping     unsafe.Pointer // what was mapped, for Close
	mappingLen  uintptr
	regionBytes int
	unitMask    uint64
	maxReady    int
	regions     []region // fixed length; fields have locks of their own
	tables      []table  // by region; each is guarded by its owner's lock

	mapSpan  func(mem []byte, n int) ([]byte, error) // the kernel's answer, which tests may refuse
	wake     chan struct{}                           // says that too few regions are ready
	stop     chan struct{}                           // closed by Close
	supplier sync.WaitGroup

	budget atomic.Int64 // bytes permitted
	used   atomic.Int64 // bytes held: regions in use or spare, and spans

	mu        sync.Mutex
	owners    []Owner
	accounts  [MaxAccounts]account
	accountOf []Account                  // by owner
	serial    uint64                     // of the region acquired last
	age       [classes][MaxAccounts]list // regions in use, oldest first
	pinned    [classes][MaxAccounts]list // those that owners refused to drop, oldest first: all older than those in age
	spare     list                       // released by owners, still resident: the next to be used again
	virgin    Region                     // regions from here on were never used
	returned  list                       // given back to the kernel
	inUse     int                        // regions
	spares    int                        // regions
	idle      int                        // of them, those that nobody has taken since the last TrimIdle: the fewest there were
	pins      int                        // regions in pinned
	stats     MemoryStats                // counters only
	closed    bool
}

// MemoryStats is a reading of a Memory.
type MemoryStats struct {
	BudgetBytes, UsedBytes int64
	RegionBytes            int
	RegionsInUse           int
	RegionsSpare           int    // resident, but empty
	RegionsPinned          int    // that owners refused to drop since the last Unpin
	SpanBytes              int64  // indexes
	RegionsPrepared        uint64 // made ready before they were needed
	RegionsReclaimed       uint64 // taken from their owners, oldest first
	RegionsReturned        uint64 // given back to the kernel
	BytesReturned          uint64
	OwnersDropped          uint64 // times an owner had to forget everything
}

type region struct {
	// epoch is 1 from the first use on and goes up each time the region is released,
	// so that no older Ref reads it again. It changes under the owner's lock and
	// Memory.mu. Regions that were never used are not even touched here: as many as
	// could ever be of a small budget, they would take more than it.
	epoch atomic.Uint32

	// Below: Memory.mu.
	next, prev Region
	serial     uint64 // order of acquisition: the age, for comparing regions of different lists
	owner      int32
	class      Class
	account    Account // its owner's
	inUse      bool
	pinned     bool // in Memory.pinned, not in Memory.age
}

// NewMemory reserves address space; it touches none of it.
func NewMemory(o MemoryOptions) (*Memory, error) {
	if o.BudgetBytes <= 0 {
		return nil, fmt.Errorf("kvcache: budget must be positive, got %d bytes", o.BudgetBytes)
	}
	if o.RegionBytes == 0 {
		o.RegionBytes = defaultRegionBytes(o.BudgetBytes)
	}
	if o.RegionBytes < MinRegionBytes || o.RegionBytes > MaxRegionBytes || o.RegionBytes&(o.RegionBytes-1) != 0 {
		return nil, fmt.Errorf("%w from %d to %d, got %d", ErrRegionBytes, MinRegionBytes, MaxRegionBytes, o.RegionBytes)
	}
	if o.BudgetBytes < int64(o.RegionBytes) {
		return nil, fmt.Errorf("kvcache: budget of %d bytes is below one region of %d", o.BudgetBytes, o.RegionBytes)
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = max(2*o.BudgetBytes, totalMemory())
	}
	n := min(max(o.ReserveBytes, o.BudgetBytes)/int64(o.RegionBytes)+1, maxRegions)

	m := &Memory{mapSpan: mapSpan, regionBytes: o.RegionBytes, unitMask: uint64(o.RegionBytes/unitBytes - 1)}
	// The kernel may refuse a large reservation (limits, strict overcommit): halve until it does not.
	var err error
	for ; n > 0; n /= 2 {
		m.mappingLen = uintptr(n+1)*uintptr(o.RegionBytes) + booksBytes(n)
		m.mapping, err = unix.MmapPtr(-1, 0, nil, m.mappingLen,
			unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
		if err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("kvcache: reserve address space: %w", err)
	}
	pad := -uintptr(m.mapping) & uintptr(o.RegionBytes-1)
	m.base = unsafe.Add(m.mapping, pad)

	m.openBooks(int(n))
	none := list{noRegion, noRegion}
	m.spare, m.returned = none, none
	for a := range m.accounts {
		m.accounts[a].share = 1
	}
	for c := range m.age {
		for a := range MaxAccounts {
			m.age[c][a], m.pinned[c][a] = none, none
		}
	}
	m.budget.Store(o.BudgetBytes)
	m.adviseHuge(o.HugePages)
	if m.maxReady = o.ReadyRegions; m.maxReady == 0 {
		m.maxReady = maxReady
	}
	m.wake, m.stop = make(chan struct{}, 1), make(chan struct{})
	if m.maxReady > 0 {
		m.supplier.Go(m.supply)
	}
	return m, nil
}

// defaultRegionBytes weighs what a region wastes, its part that is not filled
// yet, times the shards of all owners, against the number of regions and, from
// 2 MiB on, huge pages. Of 100,000 series of 240 samples each took 1,340 bytes
// with 4 MiB, 1,150 with 1 MiB; later 968 with 1 MiB, 916 with 512 KiB.
func defaultRegionBytes(budget int64) int {
	switch {
	case budget > 64<<30:
		return 4 << 20
	case budget > 32<<30:
		return 2 << 20
	case budget > 2<<30:
		return 1 << 20
	case budget >= 256<<20:
		return 512 << 10
	}
	n := int64(256 << 10)
	for n > MinRegionBytes && n*64 > budget {
		n /= 2
	}
	return int(n)
}

func totalMemory() int64 {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 1 << 30
	}
	return int64(si.Totalram) * int64(si.Unit)
}

// Close unmaps everything, with what m knows of its regions: neither m nor an owner may
// be used afterwards.
func (m *Memory) Close() error {
	m.mu.Lock()
	was := m.closed
	m.closed = true
	m.mu.Unlock()
	if was {
		return nil
	}
	close(m.stop)
	m.supplier.Wait()
	m.budget.Store(0)
	return os.NewSyscallError("munmap", unix.MunmapPtr(m.mapping, m.mappingLen))
}

// Register adds an owner, of account 0, and returns the number it passes to NewTables.
func (m *Memory) Register(o Owner) int { return m.RegisterFor(o, 0) }

// RegisterFor is Register for any account. An owner may be registered more
// than once, to hold regions under several accounts.
func (m *Memory) RegisterFor(o Owner, a Account) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.owners = append(m.owners, o)
	m.accountOf = append(m.accountOf, a)
	return len(m.owners) - 1
}

// RegionBytes is the size of every region.
func (m *Memory) RegionBytes() int { return m.regionBytes }

// Budget is the bytes permitted now.
func (m *Memory) Budget() int64 { return m.budget.Load() }

// Used is the bytes held now: regions in use or spare, and spans.
func (m *Memory) Used() int64 { return m.used.Load() }

// Stats reads the counters.
func (m *Memory) Stats() MemoryStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.BudgetBytes, s.UsedBytes, s.RegionBytes = m.budget.Load(), m.used.Load(), m.regionBytes
	s.RegionsInUse, s.RegionsSpare, s.RegionsPinned = m.inUse, m.spares, m.pins
	s.SpanBytes = s.UsedBytes - int64(m.inUse+m.spares)*int64(m.regionBytes)
	return s
}

// roomFor says what a region is to hold. The last one is only for entries that
// are moved, so that others can be freed.
type roomFor uint8

const (
	forNew roomFor = iota
	forMoved
)

// acquire hands a region to owner at the young end of class, or just before
// the region `before` in age if that is not noRegion. The caller holds the
// owner's lock.
func (m *Memory) acquire(owner int, class Class, before Region, what roomFor) (Region, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	want := int64(m.regionBytes)
	if what == forNew {
		want += m.reserve()
	}
	over := m.used.Load() > m.budget.Load() // see roomBytes
	if !over && m.roomLocked() < want || over && m.spares == 0 {
		return noRegion, false
	}
	r := m.spare.head
	if r != noRegion {
		m.spare.remove(m, r)
		m.spares--
		m.idle = min(m.idle, m.spares)
	} else {
		var ok bool
		if r, ok = m.freshLocked(); !ok {
			return noRegion, false
		}
	}
	g := &m.regions[r]
	g.owner, g.class, g.account, g.inUse = int32(owner), class, m.accountOf[owner], true
	m.accounts[g.account].regions++
	m.serial++
	g.serial = m.serial
	if before != noRegion {
		g.serial = m.regions[before].serial
		if g.pinned = m.regions[before].pinned; g.pinned {
			m.pins++
		}
		m.listOf(before).insertBefore(m, r, before)
	} else {
		m.age[class][g.account].pushBack(m, r)
	}
	m.inUse++
	if m.spares < m.readyLocked() {
		m.wakeSupplier()
	}
	return r, true
}

// renew makes a region in use the youngest of its class and account, unless it
// is pinned, and reports whether it did.
func (m *Memory) renew(r Region) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := &m.regions[r]
	if g.pinned {
		return false
	}
	l := m.listOf(r)
	l.remove(m, r)
	l.pushBack(m, r)
	m.serial++
	g.serial = m.serial
	return true
}

// listOf is the list that the region in use r is in.
func (m *Memory) listOf(r Region) *list {
	g := &m.regions[r]
	if g.pinned {
		return &m.pinned[g.class][g.account]
	}
	return &m.age[g.class][g.account]
}

// charge adds n bytes to what is used, unless that would exceed the budget.
func (m *Memory) charge(n int64) bool {
	for {
		u := m.used.Load()
		if u+n > m.budget.Load() {
			return false
		}
		if m.used.CompareAndSwap(u, u+n) {
			return true
		}
	}
}

// release takes a region back from its owner, whose lock the caller holds.
// It stays resident until it is used again or returned.
func (m *Memory) release(r Region) {
	g := &m.regions[r]
	m.mu.Lock()
	defer m.mu.Unlock()
	e := g.epoch.Add(1) // with the lock, so that dropOldest reads owner and epoch of one life
	m.listOf(r).remove(m, r)
	m.accounts[g.account].regions--
	if g.pinned {
		m.pins--
	}
	g.inUse, g.pinned = false, false
	m.inUse--
	if e >= maxEpoch {
		// Its numbers are used up, after 2^25 lives; it is left alone from now on.
		m.used.Add(-int64(m.regionBytes))
		m.dontNeed(r)
		return
	}
	m.spare.pushBack(m, r)
	m.spares++
}

// dontNeed frees the pages of r at once; they read as zero if ever touched.
// MADV_FREE would be lazier, but leaves the memory with us in the kernel's books.
func (m *Memory) dontNeed(r Region) {
	if err := m.advise(m.addr(r), uintptr(m.regionBytes), unix.MADV_DONTNEED); err != nil {
		panic("kvcache: madvise of an own mapping: " + err.Error())
	}
}

func (m *Memory) advise(p unsafe.Pointer, n uintptr, advice int) error {
	return unix.Madvise(unsafe.Slice((*byte)(p), n), advice)
}

func (m *Memory) addr(r Region) unsafe.Pointer {
	return unsafe.Add(m.base, uintptr(r)*uintptr(m.regionBytes))
}
