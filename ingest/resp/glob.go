package resp

// Match reports whether s matches a pattern as KEYS has them: * and ? and
// [a-c] and [^a], with \ before what is meant literally. It follows Redis'
// stringmatchlen, including what that makes of an unfinished [.
//
// A * is tried again only from the last one, so the work is at most len(p) ×
// len(s): Redis' own, which recurses, can be made to take exponential time.
func Match(p, s []byte) bool {
	i, j := 0, 0
	star, mark := -1, 0
	for j < len(s) {
		if i < len(p) && p[i] == '*' {
			star, mark = i, j
			i++
			continue
		}
		if i < len(p) {
			if n, ok := matchOne(p[i:], s[j]); ok {
				i += n
				j++
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		i, j = star+1, mark
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// matchOne matches the first element of p, which is not a *, against c, and
// returns that element's length.
func matchOne(p []byte, c byte) (n int, ok bool) {
	switch p[0] {
	case '?':
		return 1, true
	case '\\':
		if len(p) > 1 {
			return 2, p[1] == c
		}
	case '[':
		return matchSet(p, c)
	}
	return 1, p[0] == c
}

func matchSet(p []byte, c byte) (n int, ok bool) {
	i := 1
	not := i < len(p) && p[i] == '^'
	if not {
		i++
	}
	for ; i < len(p) && p[i] != ']'; i++ {
		switch {
		case p[i] == '\\' && i+1 < len(p):
			i++
			ok = ok || p[i] == c
		case i+2 < len(p) && p[i+1] == '-':
			lo, hi := min(p[i], p[i+2]), max(p[i], p[i+2])
			ok = ok || lo <= c && c <= hi
			i += 2
		default:
			ok = ok || p[i] == c
		}
	}
	return min(i+1, len(p)), ok != not
}
