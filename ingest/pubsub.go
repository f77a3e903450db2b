package ingest

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"mcached/ingest/resp"
)

// Publications, as far as clients of a cache need them: channels, patterns and
// shard channels, which in a server of its own are another kind of channel.

// pubsub is who has subscribed to what.
type pubsub struct {
	mu       sync.RWMutex
	channels map[string]map[*conn]struct{}
	shards   map[string]map[*conn]struct{}
	patterns map[string]*patternSubscribers
	bytes    int64 // of all subscriptions, as subscriptionBytes counts them
}

type patternSubscribers struct {
	pattern *resp.Pattern
	conns   map[*conn]struct{}
}

const (
	// maxSubscriptions bounds those of one connection.
	maxSubscriptions = 1 << 16
	// maxSubscribedBytes bounds those of all together.
	maxSubscribedBytes = 64 << 20
	// subscriptionBytes is what one takes beside its name, which is held twice.
	subscriptionBytes = 200
)

// subscriptions are those of a connection.
type subscriptions struct{ channels, patterns, shards map[string]struct{} }

// subscriptionKind is one of three.
type subscriptionKind struct {
	subscribe, unsubscribe string
	of                     func(s *subscriptions) *map[string]struct{}
	add                    func(p *pubsub, name string, c *conn)
	remove                 func(p *pubsub, name string, c *conn)
	count                  func(c *conn, by int32)
	told                   func(c *conn) int32 // what answers count
}

func addTo(m *map[string]map[*conn]struct{}, name string, c *conn) {
	if *m == nil {
		*m = map[string]map[*conn]struct{}{}
	}
	if (*m)[name] == nil {
		(*m)[name] = map[*conn]struct{}{}
	}
	(*m)[name][c] = struct{}{}
}

func removeFrom(m map[string]map[*conn]struct{}, name string, c *conn) {
	if delete(m[name], c); len(m[name]) == 0 {
		delete(m, name)
	}
}

var (
	channelKind = subscriptionKind{"subscribe", "unsubscribe",
		func(s *subscriptions) *map[string]struct{} { return &s.channels },
		func(p *pubsub, name string, c *conn) { addTo(&p.channels, name, c) },
		func(p *pubsub, name string, c *conn) { removeFrom(p.channels, name, c) },
		func(c *conn, by int32) { c.ears.channels.Add(by) },
		func(c *conn) int32 { return c.ears.channels.Load() + c.ears.patterns.Load() }}
	patternKind = subscriptionKind{"psubscribe", "punsubscribe",
		func(s *subscriptions) *map[string]struct{} { return &s.patterns },
		(*pubsub).addPattern, (*pubsub).removePattern,
		func(c *conn, by int32) { c.ears.patterns.Add(by) },
		channelKindTold}
	shardKind = subscriptionKind{"ssubscribe", "sunsubscribe",
		func(s *subscriptions) *map[string]struct{} { return &s.shards },
		func(p *pubsub, name string, c *conn) { addTo(&p.shards, name, c) },
		func(p *pubsub, name string, c *conn) { removeFrom(p.shards, name, c) },
		func(c *conn, by int32) { c.ears.shards.Add(by) },
		func(c *conn) int32 { return c.ears.shards.Load() }}
)

func channelKindTold(c *conn) int32 { return c.ears.channels.Load() + c.ears.patterns.Load() }

func (p *pubsub) addPattern(name string, c *conn) {
	if p.patterns == nil {
		p.patterns = map[string]*patternSubscribers{}
	}
	if p.patterns[name] == nil {
		p.patterns[name] = &patternSubscribers{resp.Compile([]byte(name)), map[*conn]struct{}{}}
	}
	p.patterns[name].conns[c] = struct{}{}
}

func (p *pubsub) removePattern(name string, c *conn) {
	s := p.patterns[name]
	if delete(s.conns, c); len(s.conns) == 0 {
		delete(p.patterns, name)
	}
}

func pubsubCommands() []command {
	row := func(name, syntax, summary string, arity int, run func(c *conn, args [][]byte)) command {
		return command{name: name, arity: arity, group: groupPubSub, syntax: syntax, summary: summary, run: run}
	}
	return []command{
		row("subscribe", "channel [channel ...]", "Listens to channels.", -2, func(c *conn, args [][]byte) { c.subscribe(&channelKind, args[1:]) }),
		row("unsubscribe", "[channel ...]", "Stops listening to channels, or to all.", -1, func(c *conn, args [][]byte) { c.unsubscribe(&channelKind, args[1:]) }),
		row("psubscribe", "pattern [pattern ...]", "Listens to the channels that match.", -2, func(c *conn, args [][]byte) { c.subscribe(&patternKind, args[1:]) }),
		row("punsubscribe", "[pattern ...]", "Stops listening by patterns, or by all.", -1, func(c *conn, args [][]byte) { c.unsubscribe(&patternKind, args[1:]) }),
		row("ssubscribe", "shardchannel [shardchannel ...]", "Listens to shard channels.", -2, func(c *conn, args [][]byte) { c.subscribe(&shardKind, args[1:]) }),
		row("sunsubscribe", "[shardchannel ...]", "Stops listening to shard channels, or to all.", -1, func(c *conn, args [][]byte) { c.unsubscribe(&shardKind, args[1:]) }),
		{name: "publish", arity: 3, group: groupPubSub, syntax: "channel message", summary: "Sends a message to those who listen; it is not kept.", flags: fast | published, run: func(c *conn, args [][]byte) { c.Int(c.srv.publish(args[1], args[2])) }},
		{name: "spublish", arity: 3, group: groupPubSub, syntax: "shardchannel message", summary: "Sends a message to those who listen to a shard channel.", flags: fast | published, run: func(c *conn, args [][]byte) { c.Int(c.srv.publishShard(args[1], args[2])) }},
		{name: "pubsub", arity: -2, group: groupPubSub, syntax: "CHANNELS [pattern] | NUMSUB [channel ...] | NUMPAT | SHARDCHANNELS [pattern] | SHARDNUMSUB [shardchannel ...]", summary: "Tells of channels and who listens.", subs: []command{
			{name: "channels", arity: -2, syntax: "[pattern]", summary: "Returns the channels that somebody listens to.", run: func(c *conn, args [][]byte) {
				c.channelNames(args, func(p *pubsub) map[string]map[*conn]struct{} { return p.channels })
			}},
			{name: "numsub", arity: -2, syntax: "[channel ...]", summary: "Counts who listens to channels.", run: func(c *conn, args [][]byte) {
				c.channelCounts(args, func(p *pubsub) map[string]map[*conn]struct{} { return p.channels })
			}},
			{name: "numpat", arity: 2, summary: "Counts the patterns.", run: func(c *conn, _ [][]byte) {
				p := &c.srv.pubsub
				p.mu.RLock()
				n := len(p.patterns)
				p.mu.RUnlock()
				c.Int(int64(n))
			}},
			{name: "shardchannels", arity: -2, syntax: "[pattern]", summary: "Returns the shard channels that somebody listens to.", run: func(c *conn, args [][]byte) {
				c.channelNames(args, func(p *pubsub) map[string]map[*conn]struct{} { return p.shards })
			}},
			{name: "shardnumsub", arity: -2, syntax: "[shardchannel ...]", summary: "Counts who listens to shard channels.", run: func(c *conn, args [][]byte) {
				c.channelCounts(args, func(p *pubsub) map[string]map[*conn]struct{} { return p.shards })
			}},
			{name: "help", arity: 2, summary: "Lists the subcommands.", run: func(c *conn, _ [][]byte) { c.help("pubsub") }},
		}},
	}
}

// confirm answers one name of SUBSCRIBE and its like; nil is none. CLIENT REPLY
// silences answers, and not what is pushed, which this is.
func (c *conn) confirm(word string, name []byte, count int32) {
	at := len(c.B)
	c.B = appendPush(c.B, c.V3, 3)
	c.BulkString(word)
	if name == nil {
		c.Null()
	} else {
		c.Bulk(name)
	}
	c.Int(int64(count))
	if c.silent || c.skip > 0 {
		c.B = append(c.B[:c.at], c.B[at:]...)
		c.at = len(c.B)
	}
}

func (c *conn) subscribe(kind *subscriptionKind, names [][]byte) {
	for _, name := range names {
		if kind == &patternKind {
			if _, ok := c.patternArg(name); !ok {
				return
			}
		}
	}
	if !c.canBePushed() {
		return
	}
	if problem := c.srv.pubsub.reserve(c, names); problem != "" {
		c.Fail(problem)
		return
	}
	for _, name := range names {
		c.srv.pubsub.enter(kind, c, string(name))
		c.confirm(kind.subscribe, name, kind.told(c))
		c.spill()
	}
}

// reserve makes room for c to subscribe to names, or says why there is none. What
// turns out not to be needed is given back by enter.
func (p *pubsub) reserve(c *conn, names [][]byte) (problem string) {
	n := int64(0)
	for _, name := range names {
		n += subscriptionSize(len(name))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case int(c.ears.subscriptions())+len(names) > maxSubscriptions:
		return "ERR too many subscriptions: " + itoa(int64(int(c.ears.subscriptions())+len(names))) + ", the limit is " + itoa(maxSubscriptions) + ", which no setting changes"
	case p.bytes+n > maxSubscribedBytes:
		return "ERR no room for " + itoa(n) + " bytes of subscriptions: all have " + itoa(p.bytes) + ", the limit is " + itoa(maxSubscribedBytes) + ", which no setting changes"
	}
	p.bytes += n
	return ""
}

func subscriptionSize(nameLen int) int64 { return subscriptionBytes + 2*int64(nameLen) }

// enter subscribes c to name, for which there is room.
func (p *pubsub) enter(kind *subscriptionKind, c *conn, name string) {
	mine := kind.of(&c.subs)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, has := (*mine)[name]; has {
		p.bytes -= subscriptionSize(len(name))
		return
	}
	kind.add(p, name, c)
	if *mine == nil {
		*mine = map[string]struct{}{}
	}
	(*mine)[name] = struct{}{}
	kind.count(c, 1)
}

func (p *pubsub) leave(kind *subscriptionKind, c *conn, name string) {
	mine := *kind.of(&c.subs)
	if _, has := mine[name]; !has {
		return
	}
	p.mu.Lock()
	kind.remove(p, name, c)
	p.bytes -= subscriptionSize(len(name))
	p.mu.Unlock()
	delete(mine, name)
	kind.count(c, -1)
}

func (c *conn) unsubscribe(kind *subscriptionKind, names [][]byte) {
	if len(names) == 0 {
		for name := range *kind.of(&c.subs) {
			names = append(names, []byte(name))
		}
		slices.SortFunc(names, func(a, b []byte) int { return strings.Compare(string(a), string(b)) })
	}
	if len(names) == 0 {
		c.confirm(kind.unsubscribe, nil, kind.told(c))
	}
	for _, name := range names {
		c.srv.pubsub.leave(kind, c, string(name))
		c.confirm(kind.unsubscribe, name, kind.told(c))
		c.spill()
	}
}

// deafen ends all that the connection is told of. It can be called again.
func (c *conn) deafen() {
	for _, kind := range []*subscriptionKind{&channelKind, &patternKind, &shardKind} {
		for name := range *kind.of(&c.subs) {
			c.srv.pubsub.leave(kind, c, name)
		}
	}
	c.stopMonitoring()
	c.stopTracking()
}

// restricted says that the connection may only talk about subscriptions, as one
// of RESP2 that has some cannot tell answers from messages.
func (c *conn) restricted() bool { return !c.V3 && c.ears.subscriptions() > 0 }

// mayWhileSubscribed are the commands that such a connection may run.
func mayWhileSubscribed(cmd *command) bool {
	switch cmd.name {
	case "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe", "ping", "quit", "reset":
		return true
	}
	return false
}

// message is a message in both protocols, made when it is needed.
type message struct {
	parts [][]byte
	made  [2][]byte
}

func (m *message) to(c *conn) {
	i := 0
	if c.ears.resp3.Load() {
		i = 1
	}
	if m.made[i] == nil {
		b := appendPush(nil, i == 1, byte(len(m.parts)))
		for _, p := range m.parts {
			b = resp.AppendBulk(b, p)
		}
		m.made[i] = b
	}
	c.push(m.made[i])
}

// publish tells those who listen, and returns how many were told.
func (s *Server) publish(channel, payload []byte) (n int64) {
	p := &s.pubsub
	p.mu.RLock()
	defer p.mu.RUnlock()
	m := message{parts: [][]byte{[]byte("message"), channel, payload}}
	for c := range p.channels[string(channel)] {
		m.to(c)
		n++
	}
	for name, x := range p.patterns {
		if !x.pattern.Match(channel) {
			continue
		}
		m := message{parts: [][]byte{[]byte("pmessage"), []byte(name), channel, payload}}
		for c := range x.conns {
			m.to(c)
			n++
		}
	}
	return n
}

func (s *Server) publishShard(channel, payload []byte) (n int64) {
	p := &s.pubsub
	p.mu.RLock()
	defer p.mu.RUnlock()
	m := message{parts: [][]byte{[]byte("smessage"), channel, payload}}
	for c := range p.shards[string(channel)] {
		m.to(c)
		n++
	}
	return n
}

func (c *conn) channelNames(args [][]byte, of func(p *pubsub) map[string]map[*conn]struct{}) {
	var pattern *resp.Pattern
	switch len(args) {
	case 2:
	case 3:
		var ok bool
		if pattern, ok = c.patternArg(args[2]); !ok {
			return
		}
	default:
		c.wrongSubArity(args)
		return
	}
	p := &c.srv.pubsub
	p.mu.RLock()
	var names []string
	for name := range of(p) {
		if pattern == nil || pattern.Match([]byte(name)) {
			names = append(names, name)
		}
	}
	p.mu.RUnlock()
	slices.Sort(names)
	c.strings(names)
}

func (c *conn) channelCounts(args [][]byte, of func(p *pubsub) map[string]map[*conn]struct{}) {
	p := &c.srv.pubsub
	counts := make([]int, len(args)-2)
	p.mu.RLock()
	for i, name := range args[2:] {
		counts[i] = len(of(p)[string(name)])
	}
	p.mu.RUnlock()
	c.Array(2 * len(counts))
	for i, n := range counts {
		c.Bulk(args[2+i])
		c.Int(int64(n))
	}
}

// pubsubLines are those of INFO.
func (s *Server) pubsubLines() []string {
	p := &s.pubsub
	p.mu.RLock()
	defer p.mu.RUnlock()
	return []string{
		"pubsub_channels:" + strconv.Itoa(len(p.channels)),
		"pubsub_patterns:" + strconv.Itoa(len(p.patterns)),
		"pubsubshard_channels:" + strconv.Itoa(len(p.shards)),
	}
}
