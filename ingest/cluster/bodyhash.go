package cluster

import (
	"crypto/aes"
	"crypto/cipher"
)

// Bodies of requests between members are what a cluster's writes consist of:
// SHA-256 over them, at both ends, would cost as much as to store them. So they
// are hashed by GHASH, the universal hash of AES-GCM, which processors have an
// instruction for, and HMAC-SHA-256 goes over the hashes and all else. A
// universal hash whose value nobody sees, under a function that nobody can tell
// from a random one, is a MAC (Carter and Wegman): whoever does not know the key
// hits the hash of another body with a probability of 2^-116 or less, and as the
// hashes themselves are never sent, there is no nonce that must not repeat.
//
// A body is hashed in blocks of 16 KiB, wherever its pieces end, so that it need
// not lie in one piece. How long it is goes into the HMAC, too.

const hashBlockBytes = 16 << 10

// newBodyHash makes the hash of a key of 32 bytes.
func newBodyHash(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// hashBody calls f with the hash of each block of a body that lies in pieces.
func hashBody(hash cipher.AEAD, pieces [][]byte, f func(hash []byte)) {
	var (
		nonce   [12]byte
		sum     [16]byte
		block   []byte // of several pieces
		one     = func(b []byte) { f(hash.Seal(sum[:0], nonce[:], nil, b)) }
		collect = func(b []byte) {
			if block == nil {
				block = make([]byte, 0, hashBlockBytes)
			}
			block = append(block, b...)
		}
	)
	for i, p := range pieces {
		if len(block) > 0 {
			n := min(len(p), hashBlockBytes-len(block))
			if collect(p[:n]); len(block) < hashBlockBytes {
				continue
			}
			one(block)
			block, p = block[:0], p[n:]
		}
		for len(p) >= hashBlockBytes {
			one(p[:hashBlockBytes])
			p = p[hashBlockBytes:]
		}
		switch {
		case len(p) == 0:
		case i == len(pieces)-1:
			one(p)
		default:
			collect(p)
		}
	}
	if len(block) > 0 {
		one(block)
	}
}
