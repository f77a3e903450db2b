package ingest

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"mcached/ingest/resp"
)

// A peer is another node of the cluster, to pass commands on to: one pipelined
// connection, on which the commands of all clients follow one another and the
// answers come back in that order. Clients of RESP2 and RESP3 have one each,
// because answers are passed back as they come.
//
//	client A ─┐               ┌─ writes what has gathered, in one go ─▶ peer
//	client B ─┼─▶ out, waits ─┤
//	client C ─┘               └─ reads answers, gives each to the first that waits
type peer struct {
	srv     *Server
	address string
	v3      bool // purpose is peerProxied3

	mu      sync.Mutex
	nc      net.Conn    // nil: not connected
	out     []byte      // to be written
	waiting []*peerCall // in the order of what was and will be written
	wake    chan struct{}
	failed  time.Time // when connecting failed last
}

type peerCall struct {
	done  chan struct{}
	reply []byte
	err   error
}

const (
	// peerDial, peerAnswer and peerAgain bound how long a client waits for another
	// node: to connect, to answer, and, after connecting failed, until the next
	// one tries.
	peerDial   = time.Second
	peerAnswer = 5 * time.Second
	peerAgain  = 200 * time.Millisecond
	// maxPeerWaiting and maxPeerOut bound what may wait for one node.
	maxPeerWaiting = 4096
	maxPeerOut     = 16 << 20
	// maxPeerDepth is deeper than any answer is nested.
	maxPeerDepth = 8
)

var (
	errPeerBusy   = errors.New("too much waits for it")
	errPeerGone   = errors.New("the connection broke")
	errPeerReply  = errors.New("its answer is not RESP, or too long")
	errPeerStrict = errors.New("it does not take this node for one of the cluster")
)

// peers are those of a server.
type peers struct {
	mu     sync.Mutex
	byName map[peerName]*peer
	closed bool
}

type peerName struct {
	address string
	purpose peerPurpose
}

// peerPurpose is what a connection is for: what is quick does not wait for what is slow.
type peerPurpose uint8

const (
	peerProxied  peerPurpose = iota // clients' commands, of RESP2
	peerProxied3                    // and of RESP3
	peerCopies                      // copies of keys
	peerControl                     // what is told of sessions of copies
)

// peerAt is the connection for clients' commands.
func (s *Server) peerAt(address string, v3 bool) *peer {
	if v3 {
		return s.peerFor(address, peerProxied3)
	}
	return s.peerFor(address, peerProxied)
}

func (s *Server) peerFor(address string, purpose peerPurpose) *peer {
	ps := &s.cluster.peers
	ps.mu.Lock()
	defer ps.mu.Unlock()
	name := peerName{address, purpose}
	p := ps.byName[name]
	if p == nil {
		p = &peer{srv: s, address: address, v3: purpose == peerProxied3}
		if ps.byName == nil {
			ps.byName = map[peerName]*peer{}
		}
		if ps.closed {
			p.failed = time.Now() // it is not connected any more: nobody would end it
			return p
		}
		ps.byName[name] = p
	}
	return p
}

// keep ends the connections to those that are not in the view.
func (ps *peers) keep(v *ClusterView) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for name, p := range ps.byName {
		if v == nil || !slices.ContainsFunc(v.Nodes, func(n ClusterNode) bool { return n.address() == name.address }) {
			delete(ps.byName, name)
			p.end(errPeerGone)
		}
	}
}

// close ends all connections.
func (ps *peers) close() {
	ps.keep(nil)
	ps.mu.Lock()
	ps.closed = true
	ps.mu.Unlock()
}

// do sends a command and waits for its answer, which is the caller's own. What
// was not sent was not run.
func (p *peer) do(args [][]byte) (reply []byte, sent bool, err error) {
	call, err := p.send(args)
	if err != nil {
		return nil, false, err
	}
	timer := time.NewTimer(peerAnswer)
	defer timer.Stop()
	select {
	case <-call.done:
	case <-timer.C:
		p.end(fmt.Errorf("no answer for %v", peerAnswer))
		<-call.done
	}
	return call.reply, true, call.err
}

// send puts a command behind those that wait.
func (p *peer) send(args [][]byte) (*peerCall, error) {
	return p.sendEncoded(func(out []byte) []byte { return appendCommand(out, args) })
}

// sendEncoded is send for a command that encode appends.
func (p *peer) sendEncoded(encode func(out []byte) []byte) (*peerCall, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nc == nil {
		if time.Since(p.failed) < peerAgain {
			return nil, errPeerGone
		}
		if err := p.connectLocked(); err != nil {
			p.failed = time.Now()
			return nil, err
		}
	}
	if len(p.waiting) >= maxPeerWaiting || len(p.out) >= maxPeerOut {
		return nil, errPeerBusy
	}
	p.out = encode(p.out)
	call := &peerCall{done: make(chan struct{})}
	p.waiting = append(p.waiting, call)
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return call, nil
}

func appendCommand(b []byte, args [][]byte) []byte {
	b = append(b, '*')
	b = strconv.AppendInt(b, int64(len(args)), 10)
	b = append(b, "\r\n"...)
	for _, a := range args {
		b = resp.AppendBulk(b, a)
	}
	return b
}

// connectLocked connects and shows that this is a node.
func (p *peer) connectLocked() error {
	ctx, cancel := context.WithTimeout(context.Background(), peerDial)
	defer cancel()
	dial := p.srv.o.Cluster.Dial
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	nc, err := dial(ctx, p.address)
	if err != nil {
		return err
	}
	_ = nc.SetDeadline(time.Now().Add(peerDial))
	br := bufio.NewReaderSize(nc, 64<<10)
	if err := p.introduce(nc, br); err != nil {
		nc.Close()
		return err
	}
	_ = nc.SetDeadline(time.Time{})
	p.nc, p.out, p.waiting, p.wake = nc, nil, nil, make(chan struct{}, 1)
	go p.write(nc, p.wake)
	go p.read(nc, br)
	return nil
}

// introduce answers the other node's challenge.
func (p *peer) introduce(nc net.Conn, br *bufio.Reader) error {
	ask := func(args ...[]byte) ([]byte, error) {
		if _, err := nc.Write(appendCommand(nil, args)); err != nil {
			return nil, err
		}
		return readAnswer(br, nil, 1<<10)
	}
	challenge, err := ask([]byte("MC.PEER"))
	if err != nil {
		return err
	}
	if len(challenge) < 1 || challenge[0] != '$' {
		return fmt.Errorf("%w: %.100q", errPeerStrict, challenge)
	}
	proof := p.srv.o.Cluster.Prove(bulkOf(challenge))
	if ok, err := ask([]byte("MC.PEER"), proof); err != nil || string(ok) != "+OK\r\n" {
		return errors.Join(err, fmt.Errorf("%w: %.100q", errPeerStrict, ok))
	}
	if p.v3 {
		if hello, err := ask([]byte("HELLO"), []byte("3")); err != nil || len(hello) == 0 || hello[0] != '%' {
			return errors.Join(err, errPeerReply)
		}
	}
	return nil
}

// bulkOf is the text of a bulk, unchanged.
func bulkOf(b []byte) []byte {
	if at := slices.Index(b, '\n'); at >= 0 && len(b) >= at+3 {
		return b[at+1 : len(b)-2]
	}
	return nil
}

// write writes what has gathered, again and again.
func (p *peer) write(nc net.Conn, wake <-chan struct{}) {
	var spare []byte
	for range wake {
		p.mu.Lock()
		if p.nc != nc {
			p.mu.Unlock()
			return
		}
		b := p.out
		p.out = spare[:0]
		p.mu.Unlock()
		_ = nc.SetWriteDeadline(time.Now().Add(peerAnswer))
		if _, err := nc.Write(b); err != nil {
			p.endIf(nc, err)
			return
		}
		if spare = b; cap(spare) > 1<<20 {
			spare = nil
		}
	}
}

// read gives each answer to the first that waits.
func (p *peer) read(nc net.Conn, br *bufio.Reader) {
	for {
		reply, err := readAnswer(br, nil, p.srv.o.MaxCommandBytes+1<<10)
		if err != nil {
			p.endIf(nc, err)
			return
		}
		p.mu.Lock()
		if p.nc != nc || len(p.waiting) == 0 {
			p.mu.Unlock()
			p.endIf(nc, errPeerReply)
			return
		}
		call := p.waiting[0]
		p.waiting = p.waiting[1:]
		p.mu.Unlock()
		call.reply = reply
		close(call.done)
	}
}

// end ends the connection; all that wait are told.
func (p *peer) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked(err)
}

func (p *peer) endIf(nc net.Conn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nc == nc {
		p.endLocked(err)
	}
}

func (p *peer) endLocked(err error) {
	if p.nc == nil {
		return
	}
	p.nc.Close()
	close(p.wake)
	for _, call := range p.waiting {
		call.err = err
		close(call.done)
	}
	p.nc, p.wake, p.waiting, p.out = nil, nil, nil, nil
}

// readAnswer appends one answer, as it comes, to dst, which may have most bytes.
func readAnswer(br *bufio.Reader, dst []byte, most int) ([]byte, error) {
	return readAnswerIn(br, dst, most, 0)
}

func readAnswerIn(br *bufio.Reader, dst []byte, most, depth int) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		return dst, err
	}
	if len(line) < 3 || depth > maxPeerDepth || len(dst)+len(line) > most {
		return dst, errPeerReply
	}
	kind := line[0]
	dst = append(dst, line...)
	switch kind {
	case '+', '-', ':', '_', '#', ',', '(':
		return dst, nil
	}
	n, err := strconv.Atoi(string(line[1 : len(line)-2]))
	switch {
	case err != nil || n > most:
		return dst, errPeerReply
	case n < 0:
		return dst, nil // RESP2's null
	}
	switch kind {
	case '$', '=', '!':
		at := len(dst)
		if at+n+2 > most {
			return dst, errPeerReply
		}
		dst = append(dst, make([]byte, n+2)...)
		_, err := io.ReadFull(br, dst[at:])
		return dst, err
	case '%':
		n *= 2
	case '*', '~', '>':
	default:
		return dst, errPeerReply
	}
	for range n {
		if dst, err = readAnswerIn(br, dst, most, depth+1); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// challengeBytes make a challenge that nobody meets twice.
const challengeBytes = 32

// mcPeer lets another node in: first it is given a challenge, then it answers.
// Such a connection needs no password, and its commands are run here or not at all.
func mcPeer(c *conn, args [][]byte) {
	if c.srv.o.Cluster == nil {
		c.Fail(errNoCluster)
		return
	}
	switch {
	case len(args) == 1:
		c.challenge = make([]byte, challengeBytes)
		_, _ = rand.Read(c.challenge) // never fails
		c.Bulk(c.challenge)
	case len(args) == 2 && c.challenge != nil && c.srv.o.Cluster.Proven(c.challenge, args[1]):
		c.challenge, c.peer = nil, true
		c.setAuthenticated(true)
		c.OK()
	default:
		c.challenge = nil
		c.Fail("NOAUTH this is no node of the cluster")
	}
}
