package kvcache

import (
	"bytes"
	"testing"
	"time"
)

// FuzzCache reads operations from the input, three bytes each, and runs them
// on regions of a page against a map. The seeds of the model test make longer
// histories; this one looks for short strange ones.
func FuzzCache(f *testing.F) {
	f.Add([]byte("\x00ab\x01ab\x02ab\x00bb\x03zz\x04ab\x05\x00\x00"))
	f.Add(bytes.Repeat([]byte{0, 1, 255, 0, 2, 254, 6, 1, 0, 1, 1, 1, 7, 0, 3}, 40))
	f.Add(bytes.Repeat([]byte{12, 7, 200, 11, 7, 100, 12, 9, 30, 6, 1, 0}, 60))
	f.Add(bytes.Repeat([]byte{0, 7, 200, 8, 7, 100, 9, 7, 3, 10, 0, 0}, 60))
	f.Fuzz(func(t *testing.T, ops []byte) {
		now := &clock{ms: 1}
		m, err := NewMemory(MemoryOptions{BudgetBytes: 20 * MinRegionBytes, RegionBytes: MinRegionBytes, ReserveBytes: 1 << 20, ReadyRegions: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		c, err := NewCache(CacheOptions{Memory: m, Shards: 2, SweepEvery: -1, Now: now.now})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.shards[0].places.max, c.shards[1].places.max = 24, 24
		model := map[string]modelEntry{}
		for ; len(ops) >= 3; ops = ops[3:] {
			k := bytes.Repeat(ops[1:2], 1+int(ops[1])*int(ops[1]&3))
			n := int(ops[2])
			agree := func(got []byte, ok bool) {
				want, has := model[string(k)]
				has = has && (want.expiresMs == 0 || want.expiresMs > now.ms)
				if ok && (!has || !bytes.Equal(got, want.value)) {
					t.Fatalf("%x reads %d bytes, want %d (%v)", k, len(got), len(want.value), has)
				}
				if !ok {
					delete(model, string(k))
				}
			}
			switch ops[0] % 13 {
			case 0, 1:
				v := bytes.Repeat(ops[2:3], n*(1+int(ops[0]/13)%8))
				if err := c.Put(k, v, time.Duration(ops[0]/16)*time.Millisecond); err != nil {
					t.Fatal(err)
				}
				e := modelEntry{value: v}
				if ttl := int64(ops[0] / 16); ttl > 0 {
					e.expiresMs = now.ms + ttl
				}
				model[string(k)] = e
			case 2:
				got, ok := c.Get(nil, k)
				agree(got, ok)
			case 3:
				c.Delete(k)
				delete(model, string(k))
			case 4:
				now.ms += int64(n)
			case 5:
				c.Sweep()
			case 6:
				m.SetBudget(int64(4+n%20) * MinRegionBytes)
				if m.Used() > m.Budget() {
					t.Fatalf("%d used of %d", m.Used(), m.Budget())
				}
				m.SetBudget(20 * MinRegionBytes)
			case 7:
				m.Evict(int64(n) * 256)
			case 8:
				if err := c.Update(k, func(old Entry, ok bool) (Entry, Op) {
					agree(old.Value, ok)
					return Entry{old.Value[:len(old.Value)*n/256], old.ExpiresMs, Kind(n & 3)}, Store
				}); err != nil {
					t.Fatal(err)
				}
				e := model[string(k)]
				e.value = e.value[:len(e.value)*n/256]
				model[string(k)] = e
			case 9:
				for cursor := uint64(0); ; {
					if cursor = c.Scan(cursor, n, func(key []byte, e Entry) {
						if want, has := model[string(key)]; !has || !bytes.Equal(e.Value, want.value) {
							t.Fatalf("%x is seen with %d bytes, want %d (%v)", key, len(e.Value), len(want.value), has)
						}
					}); cursor == 0 {
						break
					}
				}
			case 11, 12:
				other := []byte{ops[1] ^ ops[2]}
				keys := [][]byte{k, other, k, {ops[2]}, k}
				if ops[0]%13 == 12 {
					values := [][]byte{nil, k[:1], other, ops[:3], bytes.Repeat(ops[2:3], n)}
					if done, err := c.PutMany(keys, values); done != len(keys) || err != nil {
						t.Fatal(done, err)
					}
					for i, k := range keys {
						model[string(k)] = modelEntry{value: bytes.Clone(values[i])}
					}
				}
				c.GetMany(keys, func(i int, v []byte, _ Kind, ok bool) {
					k = keys[i]
					agree(v, ok)
				})
			case 10:
				if err := c.Check(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
	})
}
