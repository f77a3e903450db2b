package cluster

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Header is the one by which a member shows another that it is one.
const Header = "X-Mcached-Cluster"

const (
	// minSecretBytes of a secret: below it one can be guessed from what it signs.
	minSecretBytes = 16
	maxSecretBytes = 4 << 10
	// maxSecrets are two: the one in force and the one that it replaces, or
	// that will replace it.
	maxSecrets = 2
	// headerLife is how old a signed request may be, or how far ahead the clock
	// of its sender: long enough for clocks that nobody keeps, short enough that
	// what was overheard is soon of no use.
	headerLife = 2 * time.Minute
)

// Errors of Verify. A request without the header is one from outside, which is
// ErrNoHeader; with any other error it is to be rejected (403).
var (
	ErrNoHeader = errors.New("cluster: the request is not signed by a member")
	ErrForged   = errors.New("cluster: the request is signed by none of the cluster's keys, or was changed: all members must have the same --cluster.key-file and --tenancy.header")
	ErrClock    = errors.New("cluster: the request was signed too long ago, or the clocks of the members differ")
)

// Keys are what a cluster's secrets are good for: each use has a key of its
// own, derived by HKDF from the secret and the cluster's name, so that none
// tells anything of another and clusters with other names do not mix though
// they have the same secret. They are immutable and safe for concurrent use.
type Keys struct {
	headers []string // beyond the usual, that are signed
	gossip  [][]byte
	sign    [][]byte
	bodies  []*bodyHash  // of each of them
	macs    []*sync.Pool // of *mac, of each of them
	series  []byte
	prints  []byte // nil without a secret
	now     func() time.Time
}

// NewKeys derives the keys of the cluster of that name. The first secret is the
// one that signs and encrypts; what the second one signed or encrypted is
// accepted. Without any the keys are known to everybody who knows the name,
// which is good enough for members on one machine. The headers are signed with
// a request, beside its content type and encoding: those that change what the
// request means.
func NewKeys(name string, secrets [][]byte, headers ...string) (*Keys, error) {
	k := &Keys{headers: []string{"Content-Encoding", "Content-Type"}, now: time.Now}
	for _, h := range headers {
		if h != "" {
			k.headers = append(k.headers, http.CanonicalHeaderKey(h))
		}
	}
	slices.Sort(k.headers)
	secret := len(secrets) > 0
	if !secret {
		secrets = [][]byte{[]byte("a cluster without a secret")}
	}
	if len(secrets) > maxSecrets {
		return nil, fmt.Errorf("cluster: %d secrets, more than %d", len(secrets), maxSecrets)
	}
	derive := func(secret []byte, use string) ([]byte, error) {
		return hkdf.Key(sha256.New, secret, []byte("mcached cluster\x00"+name), use, 32)
	}
	for i, s := range secrets {
		gossip, err1 := derive(s, "gossip")
		sign, err2 := derive(s, "requests")
		body, err3 := derive(s, "bodies")
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, err
		}
		hash, err := newBodyHash(body)
		if err != nil {
			return nil, err
		}
		k.gossip, k.sign, k.bodies = append(k.gossip, gossip), append(k.sign, sign), append(k.bodies, hash)
		k.macs = append(k.macs, &sync.Pool{New: func() any { return &mac{h: hmac.New(sha256.New, sign)} }})
		if i == 0 {
			var err error
			if k.series, err = derive(s, "series"); err != nil {
				return nil, err
			}
			if !secret {
				continue
			}
			if k.prints, err = derive(s, "prints"); err != nil {
				return nil, err
			}
		}
	}
	return k, nil
}

// ReadSecrets takes one or two secrets, a line each, from the content of a file.
func ReadSecrets(file []byte) ([][]byte, error) {
	if len(file) > maxSecrets*(maxSecretBytes+2) {
		return nil, fmt.Errorf("a key file has %d bytes at most, got %d", maxSecrets*(maxSecretBytes+2), len(file))
	}
	var secrets [][]byte
	for line := range bytes.Lines(file) {
		line = bytes.TrimSpace(line)
		switch {
		case len(line) == 0:
			continue
		case len(line) < minSecretBytes:
			return nil, fmt.Errorf("a secret has %d bytes at least, got %d: make one with openssl rand -base64 32", minSecretBytes, len(line))
		case len(line) > maxSecretBytes:
			return nil, fmt.Errorf("a secret has %d bytes at most, got %d", maxSecretBytes, len(line))
		}
		secrets = append(secrets, bytes.Clone(line))
	}
	switch {
	case len(secrets) == 0:
		return nil, errors.New("it is empty: make a secret with openssl rand -base64 32")
	case len(secrets) > maxSecrets:
		return nil, fmt.Errorf("it has %d lines, more than %d: the secret in force and, while it is replaced, another", len(secrets), maxSecrets)
	case len(secrets) == 2 && bytes.Equal(secrets[0], secrets[1]):
		secrets = secrets[:1]
	}
	return secrets, nil
}

// Series is the key of SeriesHash. It is that of the first secret.
func (k *Keys) Series() []byte { return k.series }

// Prints is the key of SeriesPrints, of the first secret; nil for a cluster without a
// secret: who knows the key can make series that are taken for others.
func (k *Keys) Prints() []byte { return k.prints }

// Sign puts the header on a request whose body is that, in pieces. The signature covers
// the method, the path and query, the headers that say how the body is to be
// read, and the body, so that what somebody overhears cannot be used for
// anything else: it can only be sent again, for two minutes, which writes again
// what is written already. The body is hashed rather than only counted (bodyhash.go):
// that it is plain HTTP must not let others change it.
func (k *Keys) Sign(req *http.Request, body ...[]byte) {
	ms := k.now().UnixMilli()
	req.Header.Set(Header, strconv.FormatInt(ms, 10)+" "+base64.RawURLEncoding.EncodeToString(k.mac(0, req, ms, body...)))
}

// Verify says whether a request with that body was signed by a member.
func (k *Keys) Verify(req *http.Request, body []byte) error {
	switch values := req.Header.Values(Header); {
	case len(values) == 0:
		return ErrNoHeader
	case len(values) > 1:
		return ErrForged
	}
	at, signature, ok := strings.Cut(req.Header.Get(Header), " ")
	ms, err := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil || len(signature) > 64 {
		return ErrForged
	}
	mac, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		return ErrForged
	}
	for i := range k.sign {
		if !hmac.Equal(mac, k.mac(i, req, ms, body)) {
			continue
		}
		switch age := k.now().UnixMilli() - ms; {
		case age > headerLife.Milliseconds():
			return fmt.Errorf("%w: it is %v old, more than %v", ErrClock, time.Duration(age)*time.Millisecond, headerLife)
		case age < -headerLife.Milliseconds():
			return fmt.Errorf("%w: it is %v ahead of this clock, more than %v", ErrClock, time.Duration(-age)*time.Millisecond, headerLife)
		}
		return nil
	}
	return ErrForged
}

// Prove answers a challenge: that this daemon has the cluster's key.
func (k *Keys) Prove(challenge []byte) []byte { return answer(k.sign[0], challenge) }

// Proven says whether the answer to a challenge is that of a member.
func (k *Keys) Proven(challenge, got []byte) bool {
	return slices.ContainsFunc(k.sign, func(key []byte) bool { return hmac.Equal(got, answer(key, challenge)) })
}

func answer(key, challenge []byte) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte("challenge\x00"))
	_, _ = h.Write(challenge)
	return h.Sum(nil)
}

// mac is of all parts, each with its length, so that none runs into another, by
// the keys of a secret.
func (k *Keys) mac(secret int, req *http.Request, ms int64, body ...[]byte) []byte {
	m := k.macs[secret].Get().(*mac)
	defer k.macs[secret].Put(m)
	m.h.Reset()
	m.parts = m.parts[:0]
	m.add(req.Method)
	m.add(req.URL.RequestURI())
	m.addNumber(ms)
	for _, name := range k.headers {
		values := req.Header[name]
		m.add(name + " " + strconv.Itoa(len(values))) // or a value could pass for the next name
		for _, v := range values {
			m.add(v)
		}
	}
	n := 0
	for _, piece := range body {
		n += len(piece)
	}
	m.addNumber(int64(n))
	_, _ = m.h.Write(m.parts)
	k.bodies[secret].each(body, func(block []byte) { _, _ = m.h.Write(block) })
	return m.h.Sum(nil)
}

// mac is what one needs for a signature. To make it takes longer than to sign.
type mac struct {
	h     hash.Hash // HMAC
	parts []byte
}

func (m *mac) add(s string) {
	m.parts = append(append(strconv.AppendInt(m.parts, int64(len(s)), 10), ':'), s...)
}

func (m *mac) addNumber(n int64) { m.add(strconv.FormatInt(n, 10)) }
