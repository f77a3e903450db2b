package kvcache_test

import (
	"fmt"
	"time"

	"mcached/kvcache"
)

// A cache borrows its regions from a Memory, whose budget may change at any
// time. What vanishes with it reads as a miss.
func Example() {
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 64 << 20})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer memory.Close()
	cache, err := kvcache.NewCache(kvcache.CacheOptions{Memory: memory})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cache.Close()

	if err := cache.Put([]byte("greeting"), []byte("hello"), time.Minute); err != nil {
		fmt.Println(err) // only if there is no memory at all
	}
	value, ok := cache.Get(nil, []byte("greeting"))
	fmt.Println(string(value), ok)

	memory.SetBudget(0) // someone else needs all of it
	_, ok = cache.Get(nil, []byte("greeting"))
	fmt.Println(ok, memory.Used())
	// Output:
	// hello true
	// false 0
}

// Update counts, and no other writer comes between.
func ExampleCache_Update() {
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 16 << 20})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer memory.Close()
	cache, err := kvcache.NewCache(kvcache.CacheOptions{Memory: memory})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cache.Close()

	for range 3 {
		err := cache.Update([]byte("marks"), func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
			return kvcache.Entry{Value: append(old.Value, '|')}, kvcache.Store
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	value, _ := cache.Get(nil, []byte("marks"))
	fmt.Println(string(value))
	// Output: |||
}
