//go:build kvdebug

package kvcache

// scrubFreed makes freed bytes unreadable, to catch whoever still reads them.
const scrubFreed = true
