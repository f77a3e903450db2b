package pressure_test

import (
	"context"
	"errors"
	"fmt"

	"mcached/kvcache"
	"mcached/kvcache/pressure"
)

// A controller gives a Memory the budget to begin with, and changes it while
// Run goes on.
func ExampleController() {
	var memory *kvcache.Memory
	c, err := pressure.New(pressure.Options{
		FixedBytes: 64 << 20, // leave it out to use what others leave
		Used:       func() int64 { return memory.Used() },
		SetBudget:  func(n int64) { memory.SetBudget(n) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	memory, err = kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: c.Initial()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer memory.Close()

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	cancel()
	fmt.Println(memory.Budget(), errors.Is(<-done, context.Canceled))
	// Output: 67108864 true
}
