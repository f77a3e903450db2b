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

// sayStranger has the log say so, once in a while for the metrics of a query.
func (v *visit) sayStranger() {
	query, bucket, now, said := v.r.FormValue("query"), v.a.bucket(v.r), v.a.o.Now(), &v.u.strangers
	expr, err := v.a.parser.ParseExpr(query)
	if err != nil {
		return // what cannot be read has no selectors that a stranger was asked about
	}
	if metrics := metricsOf(expr); !said.has(bucket, metrics, now) {
		said.add(bucket, metrics, now)
		v.a.o.Logger.Warn("The store behind has nothing of what memory has: the answers are memory's. It may be another tenant's.",
			"expr", cut(query, maxSlowExprBytes), "bucket", bucket)
	}
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
	v.sayStranger()
	here.source = sourceMemory
	here.notes.Add(noStore(errStranger))
	return here, true
}
