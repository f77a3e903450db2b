package kvcache

import (
	"fmt"
	"math"
	"sync/atomic"
)

// Who holds regions does so on an account, and each account has a share of the
// budget. Shares keep nothing back: an account may use all that others leave.
// They say whose regions go when there is not room for all: first the oldest
// Log region of an account that holds more than its share, and when none does,
// the oldest of all, whoever's it is. Hot regions go when there is no Log
// region left, by the same rule.
//
// The regions of a class are one list for each account, by age. So the choice
// is made among MaxAccounts heads, and the age of two lists compares by the
// order in which their regions were acquired.

// Account numbers who holds memory; what the numbers mean is the caller's.
type Account uint8

// MaxAccounts bounds the number of accounts; they are chosen among by looking
// at each.
const MaxAccounts = 4

// account is what is known of one.
type account struct {
	regions int          // in use; Memory.mu
	share   float64      // of the budget, from 0 to 1; Memory.mu
	spans   atomic.Int64 // bytes
}

// AccountStats is a reading of one account.
type AccountStats struct {
	UsedBytes  int64   // regions in use, and spans
	ShareBytes int64   // of the budget as it is now
	Share      float64 // from 0 to 1
}

// SetShare changes the share of the budget that an account may hold when
// others want the room, from 0 to 1. It is 1 to begin with: only age decides
// then. Nothing is dropped by it; it says what goes next.
func (m *Memory) SetShare(a Account, share float64) error {
	if a >= MaxAccounts {
		return fmt.Errorf("kvcache: account must be below %d, got %d", MaxAccounts, a)
	}
	if !(share >= 0 && share <= 1) {
		return fmt.Errorf("kvcache: share must be from 0 to 1, got %v", share)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accounts[a].share = share
	return nil
}

// Account reads one account.
func (m *Memory) Account(a Account) AccountStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	share := m.accounts[a].share
	return AccountStats{UsedBytes: m.accountUsedLocked(a), ShareBytes: int64(math.Round(share * float64(m.budget.Load()))), Share: share}
}

func (m *Memory) accountUsedLocked(a Account) int64 {
	return int64(m.accounts[a].regions)*int64(m.regionBytes) + m.accounts[a].spans.Load()
}

// overShareLocked reports whether the account holds more than its share. One
// that has all of the budget never does.
func (m *Memory) overShareLocked(a Account) bool {
	share := m.accounts[a].share
	return share < 1 && float64(m.accountUsedLocked(a)) > share*float64(m.budget.Load())
}

// oldestLocked is the region of the class that is to go next, or noRegion.
func (m *Memory) oldestLocked(class int) Region {
	best, bestOver := noRegion, false
	for a := range Account(MaxAccounts) {
		r := m.age[class][a].head
		if r == noRegion {
			continue
		}
		over := m.overShareLocked(a)
		if best == noRegion || over && !bestOver || over == bestOver && m.regions[r].serial < m.regions[best].serial {
			best, bestOver = r, over
		}
	}
	return best
}
