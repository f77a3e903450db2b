package kvcache

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// shareOwner has tables of both classes under one account, and notes what it
// is asked to drop.
type shareOwner struct {
	account Account
	tables  [2]*Tables
	dropped func(r Region, class Class)
}

func (o *shareOwner) DropRegion(r Region, epoch uint32) bool {
	for class, t := range o.tables {
		if t.Owns(r, epoch) {
			o.dropped(r, Class(class))
			t.Drop(r)
			return true
		}
	}
	return false
}

func (o *shareOwner) DropAll() {}

// held is a region as the model knows it.
type held struct {
	r       Region
	account Account
	class   Class
}

// TestShares holds what is dropped to the words of share.go, under random
// shares, owners and budgets: a list of all regions in order of age is the model.
func TestShares(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(seed, 4))
		const budget = 96 * MinRegionBytes
		m, err := NewMemory(MemoryOptions{BudgetBytes: budget, RegionBytes: MinRegionBytes, ReserveBytes: 2 * budget, ReadyRegions: -1})
		if err != nil {
			t.Fatal(err)
		}
		var model []held // the oldest first
		var shares [MaxAccounts]float64
		spans := [MaxAccounts]Span{}
		for a := range shares {
			shares[a] = 1
			spans[a] = m.NewSpanFor(Account(a))
		}
		overDrops, ageDrops, hotDrops := 0, 0, 0
		used := func(a Account) int64 {
			n := int64(spans[a].Len())
			for _, h := range model {
				if h.account == a {
					n += MinRegionBytes
				}
			}
			return n
		}
		over := func(a Account) bool {
			return shares[a] < 1 && float64(used(a)) > shares[a]*float64(m.Budget())
		}
		var owners []*shareOwner
		for i := range 6 {
			o := &shareOwner{account: Account(i % MaxAccounts)}
			number := m.RegisterFor(o, o.account)
			for class := range o.tables {
				o.tables[class] = NewTables(m, number, Class(class), nil)
			}
			o.dropped = func(r Region, class Class) {
				at := slices.IndexFunc(model, func(h held) bool { return h.r == r })
				if at < 0 || model[at].account != o.account || model[at].class != class {
					t.Fatalf("seed %d: region %d of account %d, class %d is dropped, the model has %v", seed, r, o.account, class, at)
				}
				want := -1
				for i, h := range model {
					if h.class == Log && over(h.account) {
						want = i
						overDrops++
						break
					}
				}
				if want < 0 {
					want = slices.IndexFunc(model, func(h held) bool { return h.class == Log })
					ageDrops++
				}
				if want < 0 {
					want = max(slices.IndexFunc(model, func(h held) bool { return over(h.account) }), 0)
					hotDrops++
				}
				if want != at {
					t.Fatalf("seed %d: %+v is dropped, want %+v; shares %v", seed, model[at], model[want], shares)
				}
				model = slices.Delete(model, at, at+1)
			}
			owners = append(owners, o)
		}
		for range 3000 {
			switch o := owners[rnd.IntN(len(owners))]; rnd.IntN(40) {
			case 0:
				shares[o.account] = float64(rnd.IntN(11)) / 10
				if err := m.SetShare(o.account, shares[o.account]); err != nil {
					t.Fatal(err)
				}
			case 1:
				m.SetBudget(int64(20+rnd.IntN(76)) * MinRegionBytes)
			case 2:
				m.SetBudget(budget)
			case 3:
				if s := &spans[o.account]; rnd.IntN(2) == 0 {
					s.Free()
				} else {
					_ = s.Grow((1 + rnd.IntN(6)) * MinRegionBytes) // or there is no memory
				}
			default:
				class := Log
				if rnd.IntN(3) == 0 {
					class = Hot
				}
				ref, _, ok := o.tables[class].Alloc(o.tables[class].MaxValue(), 0, 0, 1)
				if !ok {
					m.Evict(MinRegionBytes)
					continue
				}
				model = append(model, held{ref.region(), o.account, class})
			}
			for a := range Account(MaxAccounts) {
				if st := m.Account(a); st.UsedBytes != used(a) || st.ShareBytes != int64(math.Round(shares[a]*float64(m.Budget()))) {
					t.Fatalf("seed %d: account %d: %+v, want %d used of a share of %v", seed, a, st, used(a), shares[a])
				}
			}
		}
		if overDrops < 100 || ageDrops < 100 || hotDrops < 20 {
			t.Errorf("seed %d: too little happened: %d drops over a share, %d by age, %d hot", seed, overDrops, ageDrops, hotDrops)
		}
		m.Close()
	}
}

// TestShareRefused: what is no account and what is no share.
func TestShareRefused(t *testing.T) {
	m, err := NewMemory(MemoryOptions{BudgetBytes: 1 << 20, RegionBytes: MinRegionBytes})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	zero := 0.0
	for _, s := range []float64{-0.1, 1.01, zero / zero} {
		if m.SetShare(1, s) == nil {
			t.Errorf("a share of %v is accepted", s)
		}
	}
	if m.SetShare(MaxAccounts, 1) == nil {
		t.Error("an account too many is accepted")
	}
	if _, err := NewCache(CacheOptions{Memory: m, Account: MaxAccounts}); err == nil {
		t.Error("a cache for an account too many is made")
	}
}
