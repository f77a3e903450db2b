//go:build kvdebug

package route

// poison overwrites a buffer that goes back to its pool, or whose content has
// been dealt with, to catch whoever still reads it.
func poison(b []byte) {
	b = b[:cap(b)]
	for i := range b {
		b[i] = poisonByte
	}
}

const poisonByte = 0xdb
