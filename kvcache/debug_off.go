//go:build !kvdebug

package kvcache

// scrubFreed makes freed bytes unreadable, to catch whoever still reads them.
// Build with -tags kvdebug to have it.
const scrubFreed = false
