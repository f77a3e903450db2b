package ingest

import (
	"slices"
	"strconv"

	"mcached/kvcache"
)

// A long value is copied once on its way out: from the cache, under its locks, to
// pieces that are then written as they are. All of it is in hand before the first
// byte is written, because a part of it may have vanished, and then it is a miss.
// A piece is one of the server's spares, so nothing is allocated for it.
//
// In a transaction, in a script and where several connections are answered together
// nothing may be written yet; then it is copied behind the other answers.

// pieceBytes is the size of a piece, of 128 KiB, and the longest value that is
// answered among others.
const pieceBytes = 8 * bufferBytes

// answerOne answers the value of a key by answer, or, if it is a long string, itself.
// What it answers does not begin at c.at if it has been written already.
func (c *conn) answerOne(key []byte, answer func(c *conn, value []byte, kind kvcache.Kind, ok bool)) {
	large := c.cache().View(key, func(v []byte, kind kvcache.Kind, ok bool) {
		if kind, ok = c.srv.typed(c.db, key, kind, ok); len(v) > pieceBytes && kind == kvcache.String && ok && c.writesNow() {
			c.headPiece(len(v))
			c.addPieces(v)
			return
		}
		answer(c, v, kind, ok)
	})
	if large {
		c.answerLarge(key, answer)
	} else if len(c.pieces) > 0 {
		c.writePieces()
	}
}

// answerLarge is answerOne for a value that is kept in parts.
func (c *conn) answerLarge(key []byte, answer func(c *conn, value []byte, kind kvcache.Kind, ok bool)) {
	inPieces, at, lent := c.writesNow(), len(c.B), 0
	ok, err := c.cache().ViewLarge(key, func(bytes int) error {
		c.dropPieces()
		c.B = c.B[:at]
		if bytes > lent {
			if err := c.lend(int64(bytes - lent)); err != nil {
				return err
			}
			lent = bytes
		}
		if inPieces {
			c.headPiece(bytes)
		} else {
			c.B = slices.Grow(c.B, bytes+32)
			c.BulkHead(bytes)
		}
		return nil
	}, func(part []byte) {
		if inPieces {
			c.addPieces(part)
		} else {
			c.B = append(c.B, part...)
		}
	})
	switch {
	case ok && inPieces:
		c.writePieces()
	case ok:
		c.B = append(c.B, "\r\n"...)
	default:
		c.dropPieces()
		if c.B = c.B[:at]; err != nil {
			c.refusedRoom(err)
		} else {
			kind, ok := c.srv.typed(c.db, key, kvcache.String, false)
			answer(c, nil, kind, ok)
		}
	}
	c.worked()
}

// writesNow reports whether what is answered may be written before the command
// has ended.
func (c *conn) writesNow() bool {
	return c.outBuf != nil && !c.holdsBack() && !c.silent && c.skip == 0
}

// headPiece begins an answer in pieces.
func (c *conn) headPiece(bytes int) {
	b := append(c.newPiece(), '$')
	b = strconv.AppendInt(b, int64(bytes), 10)
	c.pieces[0] = append(b, "\r\n"...)
}

func (c *conn) newPiece() []byte {
	b := c.srv.spares.take(pieceBytes)[:0]
	c.pieces = append(c.pieces, b)
	return b
}

func (c *conn) addPieces(b []byte) {
	for len(b) > 0 {
		last := len(c.pieces) - 1
		n := min(len(b), cap(c.pieces[last])-len(c.pieces[last]))
		c.pieces[last] = append(c.pieces[last], b[:n]...)
		if b = b[n:]; len(b) > 0 {
			c.newPiece()
		}
	}
}

func (c *conn) dropPieces() {
	for _, b := range c.pieces {
		c.srv.putPiece(b)
	}
	c.pieces = nil
}

func (s *Server) putPiece(b []byte) {
	b = b[:cap(b)]
	poison(b)
	s.spares.give(b)
}

// writePieces writes what was answered before, and the pieces.
func (c *conn) writePieces() {
	c.addPieces([]byte("\r\n"))
	err := c.flush()
	for _, b := range c.pieces {
		if err != nil {
			c.srv.putPiece(b)
			continue
		}
		c.outBuf, c.B = &buffer{piece: true}, b
		if err = c.flush(); c.working {
			c.work.Keep(max(c.work.Held()-pieceBytes, 0))
		}
	}
	c.pieces = nil
	if err != nil {
		c.quit = true
	}
	c.takeOutput()
	c.at = 0
}
