package mcache

import "mcached/mcache/index"

// MatchType says how a Matcher compares.
type MatchType = index.MatchType

// The four kinds of PromQL.
const (
	MatchEqual     = index.MatchEqual     // =
	MatchNotEqual  = index.MatchNotEqual  // !=
	MatchRegexp    = index.MatchRegexp    // =~
	MatchNotRegexp = index.MatchNotRegexp // !~
)

// Matcher selects series by one label; see there.
type Matcher = index.Matcher

// NewMatcher makes a Matcher; regular expressions are RE2, anchored at both
// ends, and their dot matches newlines, as in PromQL.
func NewMatcher(t MatchType, name, value string) (Matcher, error) {
	return index.NewMatcher(t, name, value)
}

// Names that are no labels.
const (
	bucketName = index.BucketName
	rawName    = index.RawName
)

// noID stands for no series, pair or name.
const noID = index.None
