package main

import (
	"time"

	"mcached/ingest/admission"
	"mcached/mcache/query"
	"mcached/remotewrite"
)

// The Go heap holds what is cached nowhere: what requests take while they are
// answered, which admission bounds in sum, and what is kept for longer, each
// kind with a bound of its own. Together they have to fit the heap's limit,
// with room for what the collector has not found yet.
//
//	heap limit  1/2  admission: bodies, decoded requests, results, unread answers
//	            1/4  kept: metadata, exemplars, label sets, keys of TS.CREATE, connections
//	            1/4  garbage
const (
	admissionPart = 2
	inputPart     = 4 // of admission; at the least the largest body, and the longest value if that fits half
)

// admissionWait is how long a request waits for room. It has its turn meanwhile,
// which others wait for: twenty large queries that wait let eighty a second pass.
const admissionWait = 250 * time.Millisecond

// admissionBytes is how much requests may have in hand together.
func (d *daemon) admissionBytes(c *config) int64 {
	if c.maxInFlight != 0 {
		return int64(c.maxInFlight)
	}
	return max(d.heapLimit.Load()/admissionPart, int64(c.largestWrite()))
}

// maxKeyBytes is how much the keys of TS.CREATE may take.
func (d *daemon) maxKeyBytes(c *config) int {
	if n := c.respMaxKeys; n != 0 {
		return int(min(int64(n), maxOption))
	}
	return d.heapPart()
}

// maxOption is the most that ingest.Options takes of anything.
const maxOption = 1 << 30

// heapPart is how much one kind of what Redis clients keep on the heap may take.
func (d *daemon) heapPart() int {
	const part, least = 8, 1 << 20
	return int(min(max(d.heapLimit.Load()/part, least), maxOption))
}

// largestWrite is what the largest permitted request needs of admission: room for
// it before and after decompression, and twice the body, since requests that are
// not whole have half of admission at the most.
func (c *config) largestWrite() byteSize {
	return max(c.writeMaxBody+c.writeMaxDecoded, 2*c.writeMaxBody)
}

func (d *daemon) newAdmission() (*admission.Pool, error) {
	return admission.New(d.admissionLimits(d.config))
}

// admissionLimits are those that a command line gives, with the longest value
// that the daemon was started with.
func (d *daemon) admissionLimits(c *config) admission.Options {
	n := d.admissionBytes(c)
	return admission.Options{
		MaxWait:  admissionWait,
		MaxBytes: n, MaxInputBytes: max(n/inputPart, int64(c.writeMaxBody), min(int64(d.config.respMaxValue)+1<<20, n/2)), MaxRequests: int(c.maxRequests),
		BytesSetting: "--admission.max-in-flight-size", RequestsSetting: "--admission.max-requests",
	}
}

// admitWrite opens the lease of one remote-write request.
func (d *daemon) admitWrite(cut func()) remotewrite.Loan {
	l := new(admission.Lease)
	l.Open(d.admission, admission.Input, cut)
	return l
}

// lendValue lends the room in which a command collects a large value to change it.
func (d *daemon) lendValue(bytes int64) (release func(), err error) {
	l := new(admission.Lease)
	l.Open(d.admission, admission.Read, nil)
	l.Bulk()
	return l.Release, l.Try(bytes)
}

// admitRead opens the lease of one request to the query API.
func (d *daemon) admitRead() query.Loan {
	l := new(admission.Lease)
	l.Open(d.admission, admission.Read, nil)
	return l
}
