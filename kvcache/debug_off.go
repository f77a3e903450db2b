//go:build !kvdebug

package kvcache

// scrubFreed makes freed bytes unreadable, to catch whoever still reads them.
// Build with -tags kvdebug to have it.
const scrubFreed = false

// checks are what a debug build does beside its work: nothing, in this one.
type checks struct{}

func (checks) now(func() error) {}
