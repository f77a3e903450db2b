package query

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// An answer that is handed on as it is must be one. Its beginning is read before
// anything is sent to the client, up to readAhead: what is wrong with a short answer,
// and with the head of any, is no harm, because memory's is sent instead. From a long
// one that breaks off the client's breaks off, too.

// readJSONHead is readHead of JSON, which it judges.
func (s *storeAnswer) readJSONHead(ctx context.Context) error {
	if err := s.readHead(ctx); err != nil {
		return err
	}
	return s.sound()
}

// readHead reads the beginning of an answer, which Read then gives.
func (s *storeAnswer) readHead(ctx context.Context) error {
	s.head = make([]byte, 0, bytes.MinRead)
	for len(s.head) < readAhead {
		if n := len(s.head); n == cap(s.head) {
			more := min(max(n, readBytes), readAhead-n)
			if err := loanOf(ctx).Take(ctx, int64(more)); err != nil {
				return err
			}
			s.head = append(make([]byte, 0, n+more), s.head...)
		}
		n, err := s.readBody(s.head[len(s.head):cap(s.head)])
		s.head = s.head[:len(s.head)+n]
		if err == io.EOF {
			s.ended = true
			return nil
		}
		if err != nil {
			return fmt.Errorf("its answer breaks off: %w", err)
		}
	}
	return nil
}

// sound says what is wrong with an answer, as far as its head shows it.
func (s *storeAnswer) sound() error {
	text, whole := s.head, s.ended
	if s.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(text))
		if err != nil {
			return notMatrix("it is not compressed as it says")
		}
		text, err = io.ReadAll(io.LimitReader(z, readAhead))
		if whole = whole && err == nil && len(text) < readAhead; s.ended && err != nil {
			return notMatrix("it is not compressed as it says")
		}
	}
	text = bytes.TrimSpace(text)
	s.empty = whole && !s.refused() && bytes.Contains(text, []byte(`"result":[]`))
	const success = `{"status":"success","data":`
	switch {
	case !whole && !bytes.HasPrefix(text, []byte("{")):
		return notMatrix("it is no object")
	case !whole, !s.refused() && bytes.HasPrefix(text, []byte(success)) && bytes.HasSuffix(text, []byte("}}")):
		return nil // nearly all, of which the rest need not be read twice
	}
	var said struct{ Status, Error string }
	switch err := json.Unmarshal(text, &said); {
	case err != nil:
		return fmt.Errorf("%w: %w", errNotMatrix, err)
	case said.Status == "error" && !s.refused():
		return fmt.Errorf("it answers with status 200 and an error: %.200s", said.Error)
	case said.Status != "success" && said.Status != "error":
		return notMatrix("it says of no status")
	}
	return nil
}

// checkEncoding says that an answer is compressed otherwise than was asked for.
func checkEncoding(res *http.Response) error {
	got := res.Header.Get("Content-Encoding")
	if got == "" || got == "identity" || res.Request == nil || got == res.Request.Header.Get("Accept-Encoding") {
		return nil
	}
	return fmt.Errorf("it answers in the encoding %.20q, which it was not asked for", got)
}

// errNoAnswer is said in the place of an end of file.
var errNoAnswer = errors.New("it closes the connection without an answer")
