package ingest

import (
	"strings"

	"mcached/ingest/resp"
	"mcached/mcache"
)

// createArgs are the options of TS.CREATE and what goes with them elsewhere.
type createArgs struct {
	seriesOptions
	labels    []mcache.Label
	hasLabels bool
	on        duplicatePolicy // ON_DUPLICATE
	at        []byte          // TIMESTAMP
	retention bool            // that it was said, for TS.ALTER; so the others
	chunkSize bool
	ignore    bool
}

// defaultChunkBytes is RedisTimeSeries'; here it is only told.
const defaultChunkBytes = 4096

// createWord is an option with values behind it. parse takes as many as it has.
type createWord struct {
	name   string
	values int
	parse  func(a *createArgs, values [][]byte) (problem string)
}

// createWords end the labels of LABELS, which some clients do not send last.
var createWords = [...]createWord{
	{"retention", 1, parseRetention},
	{"encoding", 1, parseEncoding},
	{"chunk_size", 1, parseChunkSize},
	{"duplicate_policy", 1, func(a *createArgs, v [][]byte) string { return parsePolicyOf(&a.policy, v[0], "DUPLICATE_POLICY") }},
	{"on_duplicate", 1, func(a *createArgs, v [][]byte) string { return parsePolicyOf(&a.on, v[0], "ON_DUPLICATE") }},
	{"ignore", 2, parseIgnore},
	{"timestamp", 1, func(a *createArgs, v [][]byte) string { a.at = v[0]; return "" }},
}

func findCreateWord(b []byte) *createWord {
	for i := range createWords {
		if resp.EqualFold(b, createWords[i].name) {
			return &createWords[i]
		}
	}
	return nil
}

// parseCreate reads options, and answers what is wrong with them.
func (c *conn) parseCreate(args [][]byte) (a createArgs, ok bool) {
	a.chunkBytes = defaultChunkBytes
	for len(args) > 0 {
		var problem string
		if args, problem = a.parseNext(args); problem != "" {
			c.Fail("ERR TSDB: " + problem)
			return a, false
		}
	}
	return a, true
}

// parseNext takes one option from args.
func (a *createArgs) parseNext(args [][]byte) (rest [][]byte, problem string) {
	word := args[0]
	args = args[1:]
	switch {
	case resp.EqualFold(word, "labels"):
		return a.parseLabels(args)
	case resp.EqualFold(word, "compressed"), resp.EqualFold(word, "uncompressed"):
		a.uncompressed = resp.EqualFold(word, "uncompressed")
		return args, ""
	}
	w := findCreateWord(word)
	switch {
	case w == nil:
		return nil, "unknown argument '" + clip(resp.Lower(nil, word), 64) + "'"
	case len(args) < w.values:
		return nil, "Couldn't parse " + strings.ToUpper(w.name)
	}
	return args[w.values:], w.parse(a, args[:w.values])
}

func (a *createArgs) parseLabels(args [][]byte) (rest [][]byte, problem string) {
	a.hasLabels = true
	for len(args) > 0 && findCreateWord(args[0]) == nil {
		if len(args) == 1 || !labelText(args[0], args[1]) {
			return nil, "Couldn't parse LABELS"
		}
		a.labels = append(a.labels, mcache.Label{Name: string(args[0]), Value: string(args[1])})
		args = args[2:]
	}
	return args, ""
}

// labelText reports whether a label may be given: FILTER l=(a,b) could not ask
// for a value with one of these in it.
func labelText(name, value []byte) bool {
	return len(name) > 0 && len(value) > 0 && !strings.ContainsAny(string(value), "(),")
}

func parseRetention(a *createArgs, v [][]byte) (problem string) {
	n, ok := resp.ParseInt(v[0])
	if !ok || n < 0 {
		return "Couldn't parse RETENTION"
	}
	a.retentionMs, a.retention = n, true
	return ""
}

func parseEncoding(a *createArgs, v [][]byte) (problem string) {
	switch {
	case resp.EqualFold(v[0], "compressed"):
		a.uncompressed = false
	case resp.EqualFold(v[0], "uncompressed"):
		a.uncompressed = true
	default:
		return "unknown ENCODING parameter"
	}
	return ""
}

func parseChunkSize(a *createArgs, v [][]byte) (problem string) {
	n, ok := resp.ParseInt(v[0])
	if !ok {
		return "Couldn't parse CHUNK_SIZE"
	}
	if n < 48 || n > 1<<20 || n%8 != 0 {
		return "CHUNK_SIZE value must be a multiple of 8 in the range [48 .. 1048576]"
	}
	a.chunkBytes, a.chunkSize = n, true
	return ""
}

func parsePolicyOf(to *duplicatePolicy, v []byte, name string) (problem string) {
	p, ok := parsePolicy(v)
	if !ok {
		return "Unknown " + name
	}
	*to = p
	return ""
}

func parseIgnore(a *createArgs, v [][]byte) (problem string) {
	ms, ok := resp.ParseInt(v[0])
	difference, isFloat := resp.ParseFloat(v[1])
	switch {
	case !ok || !isFloat:
		return "Couldn't parse IGNORE"
	case ms < 0 || difference < 0:
		return "IGNORE arguments cannot be negative"
	}
	a.ignoreMs, a.ignoreValue, a.ignore = ms, difference, true
	return ""
}
