package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// A bundle is what one node of a cluster sends to another in one request: parts
// of several requests, which may be of either protocol and of any bucket. It is
// remote write in an envelope, so that each part is answered by itself: a sender
// learns what was wrong with his series and nothing of those of others, and one
// malformed part does not spoil those beside it.
//
//	bundle   version ┃ protocol │ [standby length │ standby] │ [prints length │ prints]
//	                 │ bucket length │ bucket │ body length │ body ┃ …
//	answers  version ┃ status │ flags │ written ×3 │ failed │ retry after (ms) │ retry text
//	                 │ reasons │ text … │ losses │ (series since the last, samples, histograms, exemplars) …
//	                 │ [unknown │ series since the last …] ┃ …
//
// The protocol has partStandby added where Part.Standby follows, as bits of bytes
// from the lowest on, partPrints where Part.Prints do, which only nodes get that take
// Printed, and partSettled for Part.Settled. The flags of an answer are answerWhole for
// Answer.Whole, and answerUnknown where Answer.Unknown follows, which only answers to
// Printed parts have. Numbers are varints, texts and bodies follow their length. The
// version is bundleVersion; there are as many answers as there were parts, in their order.

// ContentTypeBundle and ContentTypeAnswers name the formats.
const (
	ContentTypeBundle  = "application/x-mcached-write-bundle"
	ContentTypeAnswers = "application/x-mcached-write-answers"
)

const (
	bundleVersion = 1

	// MaxPartHeadBytes is what a bundle needs for a part beside bucket, Standby, Prints
	// and body: a protocol and four lengths.
	MaxPartHeadBytes = 1 + 4*binary.MaxVarintLen32

	partStandby = 0x10
	partSettled = 0x20
	partPrints  = 0x40

	answerWhole   = 1
	answerUnknown = 2

	maxReasons     = 5
	maxReasonBytes = 2 << 10
)

// ErrBundle is the error for bytes that are no bundle, or no answers.
var ErrBundle = errors.New("malformed bundle")

// AppendBundle begins a bundle.
func AppendBundle(dst []byte) []byte { return append(dst, bundleVersion) }

// AppendPartHead appends what stands before the body of a part.
func AppendPartHead(dst []byte, p Part) []byte {
	kind := byte(p.Protocol)
	if len(p.Standby) > 0 {
		kind |= partStandby
	}
	if p.Settled {
		kind |= partSettled
	}
	if len(p.Prints) > 0 {
		kind |= partPrints
	}
	dst = append(dst, kind)
	if len(p.Standby) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(p.Standby)))
		dst = append(dst, p.Standby...)
	}
	if len(p.Prints) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(p.Prints)))
		dst = append(dst, p.Prints...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(p.Bucket)))
	dst = append(dst, p.Bucket...)
	return binary.AppendUvarint(dst, uint64(len(p.Body)))
}

// Parts decodes a bundle and calls f for each part until it returns false. The
// Body, Standby and Prints are views of b, the Bucket a copy.
func Parts(b []byte, f func(Part) bool) error {
	if len(b) == 0 || b[0] != bundleVersion {
		return versionError("a bundle", b)
	}
	last := ""
	for i := 1; i < len(b); {
		p := Part{Protocol: Protocol(b[i] &^ (partStandby | partSettled | partPrints)), Settled: b[i]&partSettled != 0}
		if p.Protocol != V1 && p.Protocol != V2 && p.Protocol != Claim && p.Protocol != PackedV1 && p.Protocol != Printed && p.Protocol != Blocks {
			return fmt.Errorf("%w: protocol %d at byte %d", ErrBundle, b[i], i)
		}
		at := i + 1
		if b[i]&partStandby != 0 {
			from, to := Bytes(b, at)
			if from < 0 {
				return fmt.Errorf("%w: standby at byte %d", ErrBundle, at)
			}
			p.Standby, at = b[from:to], to
		}
		if b[i]&partPrints != 0 {
			from, to := Bytes(b, at)
			if from < 0 || (to-from)%PrintBytes != 0 {
				return fmt.Errorf("%w: prints at byte %d", ErrBundle, at)
			}
			p.Prints, at = b[from:to], to
		}
		from, to := Bytes(b, at)
		if from < 0 {
			return fmt.Errorf("%w: bucket at byte %d", ErrBundle, at)
		}
		if string(b[from:to]) != last { // those of a request are mostly of one
			last = string(b[from:to])
		}
		p.Bucket = last
		from, to = Bytes(b, to)
		if from < 0 {
			return fmt.Errorf("%w: body of a part at byte %d", ErrBundle, to)
		}
		if p.Body = b[from:to]; !f(p) {
			return nil
		}
		i = to
	}
	return nil
}

func versionError(what string, b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: it is empty", ErrBundle)
	}
	return fmt.Errorf("%w: %s of version %d, not %d: nodes of a cluster must be of like releases", ErrBundle, what, b[0], bundleVersion)
}

// Claim is the Protocol of a part that writes nothing: its Body says of which
// slots all was written that was handed over (package route).
const Claim Protocol = 3

// AppendAnswers begins the answers to a bundle.
func AppendAnswers(dst []byte) []byte { return append(dst, bundleVersion) }

// AppendAnswer appends the answer to a part.
func AppendAnswer(dst []byte, a *Answer) []byte {
	number := func(n int) { dst = binary.AppendUvarint(dst, uint64(max(n, 0))) }
	text := func(s string) {
		s = s[:min(len(s), maxReasonBytes)]
		number(len(s))
		dst = append(dst, s...)
	}
	number(a.Status)
	flags := 0
	if a.Whole {
		flags |= answerWhole
	}
	if len(a.Unknown) > 0 {
		flags |= answerUnknown
	}
	number(flags)
	number(a.Written.Samples)
	number(a.Written.Histograms)
	number(a.Written.Exemplars)
	number(a.Failed)
	number(int(a.RetryAfter.Milliseconds()))
	text(a.Retry)
	reasons := a.Reasons[:min(len(a.Reasons), maxReasons)]
	number(len(reasons))
	for _, r := range reasons {
		text(r)
	}
	number(len(a.Losses))
	last := 0
	for _, l := range a.Losses {
		number(l.Series - last)
		number(l.Samples)
		number(l.Histograms)
		number(l.Exemplars)
		last = l.Series
	}
	if len(a.Unknown) == 0 {
		return dst
	}
	number(len(a.Unknown))
	last = 0
	for _, place := range a.Unknown {
		number(place - last)
		last = place
	}
	return dst
}

// Answers decodes the answers to n parts, which it appends to dst. They are
// copies.
func Answers(b []byte, n int, dst []Answer) ([]Answer, error) {
	if len(b) == 0 || b[0] != bundleVersion {
		return dst, versionError("answers", b)
	}
	d := answerDecoder{b: b, i: 1}
	for range n {
		dst = append(dst, d.answer())
		if d.i < 0 {
			return dst, fmt.Errorf("%w: answers that end too early, or hold numbers that cannot be", ErrBundle)
		}
	}
	if d.i != len(b) {
		return dst, fmt.Errorf("%w: %d bytes behind the answers", ErrBundle, len(b)-d.i)
	}
	return dst, nil
}

// answerDecoder reads answers at b[i:]; i is -1 when they are malformed.
type answerDecoder struct {
	b []byte
	i int
}

// number is at most max.
func (d *answerDecoder) number(max int) int {
	if d.i < 0 {
		return 0
	}
	v, i := Uvarint(d.b, d.i)
	if i < 0 || v > uint64(max) {
		d.i = -1
		return 0
	}
	d.i = i
	return int(v)
}

func (d *answerDecoder) text() string {
	if d.i < 0 {
		return ""
	}
	from, to := Bytes(d.b, d.i)
	if from < 0 || to-from > maxReasonBytes {
		d.i = -1
		return ""
	}
	d.i = to
	return string(d.b[from:to])
}

func (d *answerDecoder) answer() (a Answer) {
	const most = 1 << 30 // more elements than a body has bytes
	a.Status = d.number(599)
	flags := d.number(answerWhole | answerUnknown)
	a.Whole = flags&answerWhole != 0
	a.Written = Elements{d.number(most), d.number(most), d.number(most)}
	a.Failed = d.number(most)
	a.RetryAfter = time.Duration(d.number(int(time.Hour/time.Millisecond))) * time.Millisecond
	a.Retry = d.text()
	for n := d.number(maxReasons); n > 0 && d.i >= 0; n-- {
		a.Reasons = append(a.Reasons, d.text())
	}
	last := 0
	for n := d.number(len(d.b)); n > 0 && d.i >= 0; n-- {
		l := Loss{Series: last + d.number(most)}
		l.Elements = Elements{d.number(most), d.number(most), d.number(most)}
		a.Losses, last = append(a.Losses, l), l.Series
	}
	if flags&answerUnknown == 0 {
		return a
	}
	last = 0
	for n := d.number(len(d.b)); n > 0 && d.i >= 0; n-- {
		last += d.number(most)
		a.Unknown = append(a.Unknown, last)
	}
	return a
}
