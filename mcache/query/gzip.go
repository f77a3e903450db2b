package query

import (
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// minGzipBytes is what a connection sends at once, before it has heard of the
// client: ten packets (RFC 6928). To compress less saves no time on any line.
const minGzipBytes = 10 * 1460

// compresses reports whether an answer to r is compressed, if it is large
// enough: for a client that says it can read that, and is not on this machine.
// There bytes are copied in less time than it takes to look for what repeats
// in them, by a factor of ten, and the client is spared undoing it.
func (a *API) compresses(r *http.Request) bool {
	return acceptsGzip(r) && (a.o.GzipLocal || !local(r))
}

// local reports whether a request was made on this machine, for what is known:
// a proxy here may have brought it from far away. Those that pass on HTTP/1.0,
// or say in the usual ways for whom they ask, are taken for such.
func local(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !r.ProtoAtLeast(1, 1) {
		return false
	}
	for _, name := range [...]string{"Forwarded", "Via", "X-Forwarded-For", "X-Real-Ip"} {
		if len(r.Header[name]) > 0 {
			return false
		}
	}
	if from.Addr().Unmap().IsLoopback() {
		return true
	}
	to, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && to.AddrPort().Addr().Unmap() == from.Addr().Unmap()
}

func acceptsGzip(r *http.Request) bool {
	for _, line := range r.Header.Values("Accept-Encoding") {
		for _, coding := range strings.Split(line, ",") {
			name, q, _ := strings.Cut(coding, ";")
			if strings.TrimSpace(name) != "gzip" {
				continue
			}
			q, ok := strings.CutPrefix(strings.TrimSpace(q), "q=")
			weight, err := strconv.ParseFloat(q, 64)
			return !ok || err == nil && weight > 0 && !math.IsInf(weight, 0)
		}
	}
	return false
}
