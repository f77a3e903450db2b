package ingest

import (
	"context"
	"errors"
	"slices"

	"mcached/ingest/admission"
)

// room takes n bytes more for what the command at work collects before it can
// answer. If it returns false, there is none, and the client has been told. What
// was taken is given back when the command has ended.
//
// A connection in a loop must not wait; commands that collect much are slow ones,
// which have left it.
func (c *conn) room(n int64) bool {
	err := c.lend(n)
	if err != nil {
		c.refusedRoom(err)
	}
	return err == nil
}

func (c *conn) lend(n int64) error {
	if !c.working {
		c.working = true
		c.work.Open(c.srv.o.Admission, admission.Read, nil)
		c.work.Bulk()
	}
	if c.loop != nil || c.holdsBack() {
		return c.work.Try(n)
	}
	return c.work.Take(context.Background(), n)
}

// What commands hold of a series, and of a sample of it: as it was read, as it is
// answered, and half of each again while they grow.
const (
	keyRoom    = 600
	sampleRoom = 3 * 16
)

// roomFor makes room for more points. If it returns false, there is none, and
// busy says why.
func (c *conn) roomFor(points *[]point) bool {
	more := max(len(*points), 64)
	if c.busy = c.lend(sampleRoom * int64(more)); c.busy != nil {
		return false
	}
	*points = slices.Grow(*points, more)
	return true
}

// worked gives back what the command at work had.
func (c *conn) worked() {
	if c.working {
		c.work.Release()
		c.working = false
	}
}

// refusedRoom answers for what Admission had no room for.
func (c *conn) refusedRoom(err error) {
	var r *admission.Refusal
	if errors.As(err, &r) && r.After == 0 {
		c.Fail("ERR " + err.Error())
	} else {
		c.Fail("BUSY " + err.Error())
	}
}
