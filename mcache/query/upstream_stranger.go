package query

import "errors"

// errStranger is of a store that has none of what memory has.
var errStranger = errors.New("it has no series of what this query selects, which memory has: it may be another tenant's")

// isStranger reports that the store has no series of any selector of the query, in all
// the time that it looks at.
func (j *joint) isStranger(s *slow) bool {
	selectors, at, ok := j.a.looksAt(j.r, s)
	if !ok || j.enter() != nil {
		return false
	}
	for _, ms := range selectors {
		if some, err := j.v.some(j.a.bucket(j.r), spellSelector(ms), at); some || err != nil {
			return false
		}
	}
	return true
}
