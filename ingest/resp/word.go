package resp

// Lower appends b in lower case. Names are ASCII.
func Lower(dst, b []byte) []byte {
	for _, c := range b {
		if c-'A' < 26 {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}

// EqualFold reports whether b is s in any case; s is in lower case.
func EqualFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if c-'A' < 26 {
			c |= 0x20
		}
		if c != s[i] {
			return false
		}
	}
	return true
}
