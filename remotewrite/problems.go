package remotewrite

import (
	"errors"
	"fmt"
	"strings"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// reason is why elements of a request were not written.
type reason uint8

const (
	reasonLabels      reason = iota // series whose labels are not valid
	reasonEmpty                     // series without samples or histograms
	reasonFuture                    // samples and histograms too far ahead of the clock
	reasonSeriesLimit               // series the bucket has no place for
	reasonMetricLimit               // series the bucket has no place for among those of their metric
	reasonHistograms                // histograms that are not valid
	reasonExemplars                 // exemplars that are not valid
	reasonOther                     // series the cache refused for another reason
	reasons
)

// maxMessages bounds the answer's text: the first of a thousand like ones tell
// as much as all of them.
const maxMessages = 5

// problems collects what was wrong in a request that is processed all the same.
type problems struct {
	count    [reasons]int
	messages []error
	retry    error // no memory, say: the sender should come again
}

var errMalformed = errors.New("malformed protobuf")

// malformed says where in the decompressed body protobuf went wrong.
func malformed(message string, at int) error {
	return fmt.Errorf("malformed %s at byte %d of the decompressed body", message, at)
}

func (p *problems) reset() {
	p.count = [reasons]int{}
	p.messages = p.messages[:0]
	p.retry = nil
}

func (p *problems) room() bool { return len(p.messages) < maxMessages }

func (p *problems) say(err error) {
	if p.room() {
		p.messages = append(p.messages, err)
	}
}

func (p *problems) add(r reason, err error) {
	p.count[r]++
	p.say(err)
}

// cache files an error of the cache.
func (p *problems) cache(err error) {
	switch {
	case errors.Is(err, mcache.ErrNoMemory), errors.Is(err, mcache.ErrDirty), errors.Is(err, mcache.ErrClosed):
		p.retry = err
	case errors.Is(err, mcache.ErrMetricLimit):
		p.add(reasonMetricLimit, err)
	case errors.Is(err, mcache.ErrSeriesLimit):
		p.add(reasonSeriesLimit, err)
	case errors.Is(err, mcache.ErrLabels):
		p.add(reasonLabels, err)
	default:
		p.add(reasonOther, err)
	}
}

func (p *problems) total() int {
	n := 0
	for _, c := range p.count {
		n += c
	}
	return n
}

// text is the body of the answer.
func (p *problems) text() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d elements were not written, the valid rest was:", p.total())
	for _, err := range p.messages {
		s.WriteString("\n")
		s.WriteString(err.Error())
	}
	return s.String()
}

// errOtherProtocol is a body of one protocol under the name of the other.
// Without it every field would be unknown, and an empty request a success.
type errOtherProtocol struct{ claimed, got wire.Protocol }

func (e errOtherProtocol) Error() string {
	return fmt.Sprintf("Content-Type says protocol %v, but the body is of protocol %v", e.claimed, e.got)
}
