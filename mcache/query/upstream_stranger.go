package query

import "errors"

// A store that has no series at all of what a query selects, and memory has, is no store
// of what memory has: it is another tenant's, or somebody else's. Its answer would hide
// what memory has. So the answer is memory's, and says why. Where two parts meet, the
// seam tells (lookAtSeam); a store that is asked the whole tells by an answer without
// series.

// errStranger is of a store that has none of what memory has.
var errStranger = errors.New("it has no series of what this query selects, which memory has: it may be another tenant's")

// isStranger reports that the store has no series of any selector of the query, in all
// the time that it looks at.
func (v *visit) isStranger(s *slow) bool {
	selectors, at, ok := v.a.looksAt(v.r, s)
	if !ok {
		return false
	}
	for _, ms := range selectors {
		if some, err := v.some(v.a.bucket(v.r), spellSelector(ms), at); some || err != nil {
			return false
		}
	}
	return true
}

// sayStranger has the log say so, once in a while for the metrics.
func (a *API) sayStranger(expr, bucket string, metrics []string) {
	said := &a.upstream.strangers
	if said.has(bucket, metrics, a.o.Now()) {
		return
	}
	said.add(bucket, metrics, a.o.Now())
	a.o.Logger.Warn("The store behind has nothing of what memory has: the answers are memory's. It may be another tenant's.",
		"expr", cut(expr, maxSlowExprBytes), "bucket", bucket)
}

// instead is memory's answer to a query to which a stranger has answered that there is
// nothing. It is not ok if memory has nothing either, or the store is none.
func (v *visit) instead(s slow) (here answer, ok bool) {
	here, err := v.a.evaluate(v.r, s)
	if err != nil {
		return answer{}, false
	}
	if !here.ran.some() || !v.isStranger(&s) {
		here.close()
		return answer{}, false
	}
	v.a.sayStranger(s.expr, v.a.bucket(v.r), []string{s.expr})
	here.source = sourceMemory
	here.notes.Add(noStore(errStranger))
	return here, true
}
