package alg

import (
	"crypto/cipher"
	"crypto/subtle"
)

// ctrMode is AES in counter mode as RFC 3686 §4 has it: the counter block is salt, IV and a 32-bit counter from 1.
//
// The streams of crypto/cipher are made anew for each packet. GCM is not, and encrypts from counter 2 with the same
// 12 bytes in front: so the first block is done by hand, the rest is GCM's cipher text without its tag.
type ctrMode struct {
	block cipher.Block
	gcm   cipher.AEAD
}

func newCTR(b cipher.Block) (*ctrMode, error) {
	g, err := cipher.NewGCM(b)
	if err != nil {
		return nil, err
	}
	return &ctrMode{b, g}, nil
}

// xor encrypts or decrypts body in place. nonce is salt and IV, 12 bytes; tmp is memory for one block.
func (c *ctrMode) xor(nonce, body []byte, tmp *[16]byte) {
	copy(tmp[:], nonce)
	tmp[12], tmp[13], tmp[14], tmp[15] = 0, 0, 0, 1
	c.block.Encrypt(tmp[:], tmp[:])
	n := subtle.XORBytes(body, body, tmp[:])
	if body = body[n:]; len(body) == 0 {
		return
	}
	s := getScratch()
	copy(body, c.gcm.Seal(s[:0], nonce, body, nil))
	putScratch(s)
}
