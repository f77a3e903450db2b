package ingest

import (
	"fmt"
	"slices"
	"strings"

	"mcached/ingest/resp"
	"mcached/mcache"
)

const (
	errSameKeys  = "ERR TSDB: the source key and destination key should be different"
	errSourceOf  = "ERR TSDB: the source key already has a source rule"
	errDestOf    = "ERR TSDB: the destination key already has a dst rule"
	errDestTaken = "ERR TSDB: the destination key already has a src rule"
	errNoRule    = "ERR TSDB: compaction rule does not exist"
)

// tsCreateRule is TS.CREATERULE source destination AGGREGATION aggregator ms [align].
func tsCreateRule(c *conn, args [][]byte) {
	if len(args) > 7 || !resp.EqualFold(args[3], "aggregation") {
		c.wrongArity("ts.createrule")
		return
	}
	agg, problem := parseRule(args[4:])
	switch {
	case problem != "":
		c.Fail("ERR TSDB: " + problem)
		return
	case string(args[1]) == string(args[2]):
		c.Fail(errSameKeys)
		return
	}
	source, ok := c.keptSeries(args[1])
	if !ok {
		return
	}
	dest, ok := c.keptSeries(args[2])
	if !ok {
		return
	}
	if problem := c.srv.series.link(source, dest, agg); problem != "" {
		c.Fail(problem)
		return
	}
	c.OK()
}

func parseRule(args [][]byte) (agg aggregation, problem string) {
	var a rangeArgs
	if _, problem = parseAggregation(&a, args); problem != "" {
		return agg, problem
	}
	agg = *a.agg
	agg.stamp = '-'
	if len(agg.kinds) != 1 {
		return agg, "CREATERULE requires exactly one aggregation type"
	}
	if len(args) > 2 {
		ms, ok := resp.ParseInt(args[2])
		switch {
		case !ok:
			return agg, "Couldn't parse alignTimestamp"
		case ms < 0 || ms > mcache.MaxTime:
			return agg, "alignTimestamp should be greater or equal to 0"
		}
		agg.alignMs = ms
	}
	return agg, ""
}

// keptSeries is findSeries for a key that is to have an entry from now on.
func (c *conn) keptSeries(key []byte) (*seriesKey, bool) {
	k, ok := c.findSeries(key)
	if !ok {
		return nil, false
	}
	k, err := c.srv.series.adopt(k)
	if err != nil {
		c.failWith(err)
	}
	return k, err == nil
}

// link makes a rule, or says why not.
func (d *directory) link(source, dest *seriesKey, agg aggregation) (problem string) {
	d.linking.Lock() // of two that would make a ring one finds the other's
	defer d.linking.Unlock()
	dest = dest.current()
	source = source.lock()
	defer source.mu.Unlock()
	d.mu.RLock()
	there := d.byName[source.name] == source // and stays, as it is locked
	d.mu.RUnlock()
	switch {
	case source == dest:
		return errSameKeys // by another name
	case !there:
		return errNoKey // removed meanwhile; who has dest locked may be about to lock it
	case source.from != nil && !source.from.gone.Load():
		return errSourceOf
	case len(source.liveRulesLocked()) >= maxRules:
		return fmt.Sprintf("ERR TSDB: too many rules of one key, the limit is %d", maxRules)
	}
	dest.mu.Lock()
	defer dest.mu.Unlock()
	switch {
	case dest.moved != nil:
		return errNoKey // renamed a moment ago
	case len(dest.liveRulesLocked()) > 0:
		return errDestOf
	case dest.from != nil && !dest.from.gone.Load():
		return errDestTaken
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.byName[dest.name] != dest:
		return errNoKey // removed meanwhile
	case d.bytes+ruleBytes > int64(d.limits.Load().MaxKeyBytes):
		return fmt.Sprintf("ERR TSDB: no room for a rule of %d bytes: all keys have %d, the limit is %d%s", ruleBytes, d.bytes, d.limits.Load().MaxKeyBytes, d.o.flag("MaxKeyBytes"))
	}
	d.bytes += ruleBytes
	r := &compaction{agg: agg}
	r.source.Store(source)
	r.dest.Store(dest)
	source.rules, dest.from = append(source.rules, r), r
	return ""
}

func tsDeleteRule(c *conn, args [][]byte) {
	source, ok := c.findSeries(args[1])
	if !ok {
		return
	}
	source = source.lock()
	defer source.mu.Unlock()
	i := slices.IndexFunc(source.liveRulesLocked(), func(r *compaction) bool { return r.dest.Load().name == string(args[2]) })
	if i < 0 {
		c.Fail(errNoRule)
		return
	}
	c.srv.series.detach(source.rules[i])
	source.liveRulesLocked()
	c.OK()
}

// ruleOf is what TS.INFO tells of a rule.
type ruleOf struct {
	dest string
	agg  aggregation
}

// rulesOf are the rules of a key, and the key that it is compacted from, "" for none.
func (d *directory) rulesOf(k *seriesKey) (rules []ruleOf, source string, compacted bool) {
	k = k.lock()
	defer k.mu.Unlock()
	for _, r := range k.liveRulesLocked() {
		if dest := r.dest.Load(); !d.expired(dest) {
			rules = append(rules, ruleOf{dest.name, r.agg})
		}
	}
	if r := k.from; r != nil && !r.gone.Load() && !d.expired(r.source.Load()) {
		return rules, r.source.Load().name, true
	}
	return rules, "", false
}

// rules answers TS.INFO's sourceKey and rules.
func (c *conn) rules(k *seriesKey) {
	rules, source, compacted := c.srv.series.rulesOf(k)
	c.Simple("sourceKey")
	if compacted {
		c.BulkString(source)
	} else {
		c.Null()
	}
	c.Simple("rules")
	if c.V3 {
		c.MapOf(len(rules))
	} else {
		c.Array(len(rules))
	}
	for _, r := range rules {
		if c.V3 {
			c.BulkString(r.dest)
			c.Array(3)
		} else {
			c.Array(4)
			c.BulkString(r.dest)
		}
		c.Int(r.agg.bucketMs)
		c.Simple(strings.ToUpper(r.agg.kinds[0]))
		c.Int(r.agg.alignMs)
	}
}
