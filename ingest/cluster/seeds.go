package cluster

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// rejoinEvery is how often seeds are asked that are not members. It has
	// no end: memberlist asks no dead member again, so a cut of more than half a minute
	// would never heal.
	rejoinEvery = 10 * time.Second
	// aloneEvery is how often while nobody was met, so that daemons which are
	// started together find each other at once.
	aloneEvery = time.Second
	// rejoinMost bounds whom a round asks: each costs a connection, and one that
	// answers tells of all the others.
	rejoinMost = 3
	// lostMost bounds the members that are remembered when they are gone, and
	// lostFor for how long.
	lostMost = 64
	lostFor  = time.Hour
	// resolveMost bounds how long a name server is waited for.
	resolveMost = 2 * time.Second
)

// CheckSeed says whether a seed is host:port or dns+host:port.
func CheckSeed(seed string) error {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(seed, "dns+"))
	if err != nil || host == "" || port == "" || port == "0" {
		return fmt.Errorf("%q is not HOST:PORT or dns+NAME:PORT", seed)
	}
	return nil
}

// seeds are the addresses to find members at.
type seeds struct {
	given   []string
	own     func(netip.AddrPort) bool
	resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	failed atomic.Bool // the last round met nobody, and nobody was met before

	mu   sync.Mutex
	lost map[netip.AddrPort]time.Time // addresses of members that went without a word, and when
}

func newSeeds(given []string, own func(netip.AddrPort) bool) seeds {
	return seeds{given: given, own: own, lost: map[netip.AddrPort]time.Time{}, resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}}
}

// ownAddresses recognizes this daemon among the seeds.
func (c *Cluster) ownAddresses() func(netip.AddrPort) bool {
	own := c.Address()
	listen := c.o.Listen
	return func(a netip.AddrPort) bool {
		if a.Port() != own.Port() {
			return false
		}
		return a.Addr() == own.Addr() || a.Addr() == listen.Addr() || listen.Addr().IsUnspecified() && isOwn(a.Addr())
	}
}

// isOwn says whether an address is of this machine.
func isOwn(ip netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(all, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == ip
	})
}

func (s *seeds) lose(address netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lost) < lostMost {
		s.lost[address] = time.Now()
	}
}

// addresses are those to ask: of seeds, and of the members that were lost, but
// for this daemon itself and who is there.
func (s *seeds) addresses(there map[netip.AddrPort]bool) (ask []string, err error) {
	add := func(a netip.AddrPort) {
		if a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port()); !there[a] && !s.own(a) && !slices.Contains(ask, a.String()) {
			ask = append(ask, a.String())
		}
	}
	for _, seed := range s.given {
		host, service, _ := net.SplitHostPort(strings.TrimPrefix(seed, "dns+"))
		port, failed := net.LookupPort("tcp", service)
		if ip, notIP := netip.ParseAddr(host); failed == nil && notIP == nil {
			add(netip.AddrPortFrom(ip, uint16(port)))
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), resolveMost)
		ips, failed2 := s.resolve(ctx, host)
		cancel()
		if failed == nil {
			failed = failed2
		}
		if failed != nil {
			err = fmt.Errorf("%s: %w", seed, failed)
			continue
		}
		for _, ip := range ips {
			add(netip.AddrPortFrom(ip, uint16(port)))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for address, at := range s.lost {
		if time.Since(at) > lostFor || there[address] {
			delete(s.lost, address)
			continue
		}
		add(address)
	}
	return ask, err
}

// rejoin asks seeds that are no members until the Cluster is closed.
func (c *Cluster) rejoin() {
	said := false
	for {
		err := c.askSeeds()
		c.seeds.failed.Store(err != nil && !c.Joined())
		if err != nil && !c.Joined() && !said {
			said = true
			c.o.Logger.Warn("No seed let this daemon in yet: it is alone. It asks on; check that --cluster.join names daemons that run, and that all have the same --cluster.name and --cluster.key-file.", "cluster", c.o.Name, "seeds", strings.Join(c.o.Seeds, " "), "err", oneLine(err))
		}
		wait := rejoinEvery
		if !c.Joined() {
			wait = aloneEvery
		}
		select {
		case <-c.stop:
			return
		case <-time.After(wait - wait/10 + rand.N(wait/5)):
		}
	}
}

// askSeeds is one round.
func (c *Cluster) askSeeds() error {
	there := map[netip.AddrPort]bool{}
	c.thereMu.Lock()
	for _, p := range c.there {
		there[p.gossip] = true
	}
	c.thereMu.Unlock()
	ask, err := c.seeds.addresses(there)
	if len(ask) == 0 {
		if err == nil {
			c.joined.Store(true) // all seeds are this daemon itself, or there
			c.haveMet()
		}
		return err
	}
	rand.Shuffle(len(ask), func(i, j int) { ask[i], ask[j] = ask[j], ask[i] })
	n, err := c.ml.Join(ask[:min(len(ask), rejoinMost)])
	if n > 0 {
		c.counts.rejoined.Add(1)
		c.haveMet()
		c.wake()
		c.tellState()
		return nil
	}
	return err
}

// haveMet notes that a seed has told of all members that it knows.
func (c *Cluster) haveMet() {
	if !c.met.Swap(true) {
		c.wake()
	}
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// gossipLog turns memberlist's lines into records for who debugs: they are many
// and say what the table and the metrics say better.
type gossipLog struct {
	log    *slog.Logger
	errors atomic.Uint64

	mu   sync.Mutex
	last map[string]time.Time
}

func (g *gossipLog) logger() *log.Logger { return log.New(g, "", 0) }

// Write implements io.Writer.
func (g *gossipLog) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	if strings.HasPrefix(line, "[ERR]") || strings.HasPrefix(line, "[WARN]") {
		g.errors.Add(1)
	}
	g.log.Debug(line)
	return len(b), nil
}

// once warns of a kind of thing at most once in a minute: anybody may cause it.
func (g *gossipLog) once(message string, err error) {
	g.mu.Lock()
	if g.last == nil {
		g.last = map[string]time.Time{}
	}
	quiet := time.Since(g.last[message]) < time.Minute
	if !quiet {
		g.last[message] = time.Now()
	}
	g.mu.Unlock()
	if !quiet {
		g.log.Warn(message, "err", err)
	}
}

var _ memberlist.Delegate = (*delegate)(nil)
