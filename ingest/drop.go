package ingest

import (
	"mcached/ingest/resp"
)

// A command with an argument that is too long, or that there is no room for, is
// read and thrown away, whatever its length, so that the connection lives and
// the next command is found. Then it is answered that it was refused.

// maxDropped bounds an argument that is thrown away, as Redis bounds all: longer
// ones are errors of the protocol.
const maxDropped = 512 << 20

// dropping is a command that is thrown away as it comes.
type dropping struct {
	on    bool
	bytes int64 // of the argument at work, its CRLF included, that are to come
	args  int   // arguments behind it
	size  int64 // of the argument that was too long
	why   error // there is no room for it, nil for too long
}

// dropFrom begins to drop a command. Nothing before it waits to be run.
func (c *conn) dropFrom(long *resp.TooLong, why error) {
	c.framer.Reset()
	c.start += long.Body
	c.dropping = dropping{on: true, bytes: long.Bytes + 2, args: long.Left, size: long.Bytes, why: why}
}

// drop throws away what has come of a command, and answers when that was all. It
// reports whether more has to come.
func (c *conn) drop() (more bool, err error) {
	d := &c.dropping
	for {
		n := min(d.bytes, int64(c.end-c.start))
		c.start += int(n)
		if d.bytes -= n; d.bytes > 0 {
			c.need = 1
			return true, nil
		}
		if d.args == 0 {
			break
		}
		size, n2, err := resp.BulkHead(c.in[c.start:c.end])
		if err != nil || n2 == 0 {
			c.need = c.end - c.start + 1
			return true, err
		}
		if size > maxDropped {
			return false, resp.ProtocolError("invalid bulk length")
		}
		c.start += n2
		d.bytes, d.args = size+2, d.args-1
	}
	d.on = false
	c.commands++
	c.at = len(c.B)
	if c.tx != nil && c.tx.open {
		c.tx.broken = true
	}
	if d.why != nil {
		c.refusedRoom(d.why)
	} else {
		c.Fail("ERR an argument of " + itoa(d.size) + " bytes is too long, the limit is " + itoa(int64(c.limits.BulkBytes)) + c.srv.o.flag("MaxBulkBytes"))
	}
	c.answered()
	return false, nil
}
