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
	count    [reasons]int // elements: samples, histograms, exemplars, or series as a whole
	failed   int          // of them, those that make the answer a 400
	messages []string     // of the first of those
	retry    error        // no memory, say: the sender should retry
	notice   string       // the first of what is only logged
}

var errMalformed = errors.New("malformed protobuf")

// malformed says where in the decompressed body protobuf went wrong.
func malformed(message string, at int) error {
	return fmt.Errorf("malformed %s at byte %d of the decompressed body", message, at)
}

func (p *problems) reset() {
	p.count = [reasons]int{}
	p.failed, p.messages = 0, p.messages[:0]
	p.retry, p.notice = nil, ""
}

// room reports whether what is wrong with one more is going to be said. A flood
// is not described one by one.
func (p *problems) room() bool { return len(p.messages) < maxMessages }

// add counts n elements that were not written. why, which is called if it is
// going to be said, names the reason first and the series last.
func (p *problems) add(r reason, n int, why func() string) {
	p.count[r] += n
	p.failed += n
	if p.room() {
		p.messages = append(p.messages, why())
	}
}

// tolerate counts n elements that were not kept, and that no sender is told
// of: to refuse a request for them would cost its samples.
func (p *problems) tolerate(r reason, n int, why func() string) {
	p.count[r] += n
	p.note(why)
}

// note has something logged that is no reason to refuse anything.
func (p *problems) note(why func() string) {
	if p.notice == "" {
		p.notice = why()
	}
}

// cache files an error of the cache about the series that series describes.
func (p *problems) cache(err error, o *Options, series func() string) {
	r := reasonOther
	flag := ""
	switch {
	case errors.Is(err, mcache.ErrBuckets):
		p.retry = fmt.Errorf("%w%s", err, o.flag("MaxBuckets"))
		return
	case errors.Is(err, mcache.ErrNoMemory), errors.Is(err, mcache.ErrDirty), errors.Is(err, mcache.ErrClosed):
		p.retry = err
		return
	case errors.Is(err, mcache.ErrMetricLimit):
		r, flag = reasonMetricLimit, o.flag("Limits.SeriesPerMetric")
	case errors.Is(err, mcache.ErrSeriesLimit):
		r, flag = reasonSeriesLimit, o.flag("Limits.Series")
	case errors.Is(err, mcache.ErrLabels):
		r = reasonLabels
	}
	p.add(r, 1, func() string { return err.Error() + flag + ", for " + series() })
}

// text is the body of the answer: lost are how many of all samples were not
// written. Senders log the first line alone, so that has the first reason.
func (p *problems) text(lost, all int) string {
	var s strings.Builder
	switch {
	case lost > 0 && lost == all:
		fmt.Fprintf(&s, "%d of %d samples were not written: ", lost, all)
	case lost > 0:
		fmt.Fprintf(&s, "%d of %d samples were not written, the others were: ", lost, all)
	default:
		fmt.Fprintf(&s, "all %d samples were written, but: ", all)
	}
	if p.retry != nil {
		s.WriteString(p.retry.Error())
		s.WriteString("; send it again")
		for _, m := range p.messages {
			s.WriteString("\n" + m)
		}
		return plain(s.String())
	}
	s.WriteString(strings.Join(p.messages, "\n"))
	if !p.room() {
		fmt.Fprintf(&s, "\nand more like it, %d in all", p.failed)
	}
	return plain(s.String())
}

// plain leaves the names of packages out of a text: they mean nothing to a
// sender.
func plain(text string) string {
	for _, p := range []string{"kvcache: ", "mcache: "} {
		text = strings.ReplaceAll(text, p, "")
	}
	return text
}

// errOtherProtocol is a body of one protocol under the name of the other.
// Without it every field would be unknown, and an empty request a success.
type errOtherProtocol struct{ claimed, got wire.Protocol }

func (e errOtherProtocol) Error() string {
	return fmt.Sprintf("Content-Type says protocol %v, but the body is of protocol %v", e.claimed, e.got)
}
