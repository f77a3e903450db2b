package ingest

import (
	"strings"

	"mcached/ingest/resp"
)

// CLIENT TRACKING, CACHING, GETREDIR and TRACKINGINFO; what they set is tracking.go's.

// clientTracking is CLIENT TRACKING, with the errors of Redis in its order.
func clientTracking(c *conn, args [][]byte) {
	t := &tracker{c: c, target: c}
	for i := 3; i < len(args); i++ {
		more := i+1 < len(args)
		switch a := args[i]; {
		case resp.EqualFold(a, "redirect") && more:
			i++
			if t.redirect != 0 {
				c.Fail("ERR A client can only redirect to a single other client")
				return
			}
			id, ok := c.integerArg(args[i])
			if !ok {
				return
			}
			if t.redirect, t.target = id, c.srv.clientByID(id); t.target == nil {
				c.Fail("ERR The client ID you want redirect to does not exist")
				return
			}
		case resp.EqualFold(a, "bcast"):
			t.bcast = true
		case resp.EqualFold(a, "optin"):
			t.optin = true
		case resp.EqualFold(a, "optout"):
			t.optout = true
		case resp.EqualFold(a, "noloop"):
			t.noloop = true
		case resp.EqualFold(a, "prefix") && more:
			i++
			t.prefixes = append(t.prefixes, string(args[i]))
		default:
			c.Fail(errSyntax)
			return
		}
	}
	switch {
	case resp.EqualFold(args[2], "on"):
		if problem := t.problem(c.ears.tracker.Load()); problem != "" {
			c.Fail(problem)
			return
		}
		if !c.canBePushed() {
			return
		}
		if t.bcast && len(t.prefixes) == 0 {
			t.prefixes = []string{""}
		}
		if t.redirect != 0 {
			t.target.willBePushed()
		}
		c.srv.tracking.start(t)
		if t.redirect != 0 && c.srv.clientByID(t.redirect) == nil { // it has gone meanwhile
			c.srv.tracking.forgetTarget(t.target)
		}
	case resp.EqualFold(args[2], "off"):
		c.stopTracking()
	default:
		c.Fail(errSyntax)
		return
	}
	c.OK()
}

// problem is why t cannot be, where old is now, or nothing. It takes over the
// prefixes of old.
func (t *tracker) problem(old *tracker) string {
	switch {
	case !t.bcast && len(t.prefixes) > 0:
		return "ERR PREFIX option requires BCAST mode to be enabled"
	case old != nil && old.bcast != t.bcast:
		return "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode."
	case t.bcast && (t.optin || t.optout):
		return "ERR OPTIN and OPTOUT are not compatible with BCAST"
	case t.optin && t.optout:
		return "ERR You can't specify both OPTIN mode and OPTOUT mode"
	case old != nil && (t.optin && old.optout || t.optout && old.optin):
		return "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode."
	case len(t.prefixes) > maxPrefixes:
		return "ERR too many prefixes: " + itoa(int64(len(t.prefixes))) + ", the limit is " + itoa(maxPrefixes) + ", which no setting changes"
	}
	if t.bcast && old != nil {
		for _, p := range t.prefixes {
			for _, o := range old.prefixes {
				if strings.HasPrefix(p, o) || strings.HasPrefix(o, p) {
					return "ERR Prefix '" + p + "' overlaps with an existing prefix '" + o + "'. Prefixes for a single client must not overlap."
				}
			}
		}
	}
	for i, p := range t.prefixes {
		for _, o := range t.prefixes[i+1:] {
			if strings.HasPrefix(p, o) || strings.HasPrefix(o, p) {
				return "ERR Prefix '" + p + "' overlaps with another provided prefix '" + o + "'. Prefixes for a single client must not overlap."
			}
		}
	}
	if t.bcast && old != nil {
		if t.prefixes = append(t.prefixes, old.prefixes...); len(t.prefixes) > maxPrefixes {
			return "ERR too many prefixes: " + itoa(int64(len(t.prefixes))) + ", the limit is " + itoa(maxPrefixes) + ", which no setting changes"
		}
	}
	return ""
}

// clientByID is an open connection that can be pushed to or will be, or nil.
func (s *Server) clientByID(id int64) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.id == id {
			return c
		}
	}
	return nil
}

func clientCaching(c *conn, args [][]byte) {
	t := c.ears.tracker.Load()
	switch {
	case t == nil:
		c.Fail("ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled")
		return
	case resp.EqualFold(args[2], "yes"):
		if !t.optin {
			c.Fail("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.")
			return
		}
	case resp.EqualFold(args[2], "no"):
		if !t.optout {
			c.Fail("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.")
			return
		}
	default:
		c.Fail(errSyntax)
		return
	}
	t.caching, t.cachingFresh = true, true
	c.OK()
}

// cachingEnds forgets CLIENT CACHING after the command, or the transaction, that
// it was said for.
func (c *conn) cachingEnds() {
	t := c.ears.tracker.Load()
	switch {
	case t == nil || !t.caching:
	case t.cachingFresh:
		t.cachingFresh = false
	case c.tx == nil || !c.tx.open:
		t.caching = false
	}
}

func clientGetRedir(c *conn, _ [][]byte) {
	if t := c.ears.tracker.Load(); t != nil {
		c.Int(t.redirect)
	} else {
		c.Int(-1)
	}
}

func clientTrackingInfo(c *conn, _ [][]byte) {
	flags, redirect := []string{"off"}, int64(-1)
	var prefixes []string
	if t := c.ears.tracker.Load(); t != nil {
		flags, redirect = []string{"on"}, t.redirect
		for _, f := range []struct {
			on   bool
			name string
		}{
			{t.bcast, "bcast"}, {t.optin, "optin"}, {t.optin && t.caching, "caching-yes"}, {t.optout, "optout"},
			{t.optout && t.caching, "caching-no"}, {t.noloop, "noloop"}, {t.broken.Load(), "broken_redirect"},
		} {
			if f.on {
				flags = append(flags, f.name)
			}
		}
		prefixes = t.prefixes
	}
	c.MapOf(3)
	c.BulkString("flags")
	c.SetOf(len(flags))
	for _, f := range flags {
		c.BulkString(f)
	}
	c.BulkString("redirect")
	c.Int(redirect)
	c.BulkString("prefixes")
	c.strings(prefixes)
}
