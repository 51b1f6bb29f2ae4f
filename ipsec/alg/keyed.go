package alg

import (
	"crypto/md5"
	"crypto/sha1"
	"encoding/binary"
	"hash"
)

// keyedHash is the MAC from before HMAC: the hash of the key, filled up to whole blocks, the data, and the key once more
// (RFC 1828 §1, RFC 1852). Sum ends a computation: nothing can be written until Reset.
type keyedHash struct {
	hash.Hash
	key   []byte
	front []byte // key and fill
}

func newKeyedMD5(key []byte) hash.Hash {
	return newKeyedHash(md5.New(), key, binary.LittleEndian.PutUint64)
}

func newKeyedSHA1(key []byte) hash.Hash {
	return newKeyedHash(sha1.New(), key, binary.BigEndian.PutUint64)
}

// newKeyedHash fills the key as the hash itself would fill a message that is the key: a one bit, zeros, the length.
func newKeyedHash(h hash.Hash, key []byte, putLength func([]byte, uint64)) hash.Hash {
	size := h.BlockSize()
	front := make([]byte, (len(key)+8)/size*size+size)
	n := copy(front, key)
	front[n] = 0x80
	putLength(front[len(front)-8:], uint64(len(key))*8)
	k := &keyedHash{Hash: h, key: append([]byte(nil), key...), front: front}
	k.Reset()
	return k
}

// Reset begins a new computation.
func (k *keyedHash) Reset() {
	k.Hash.Reset()
	k.Write(k.front)
}

// Sum ends the computation and appends the result to b.
func (k *keyedHash) Sum(b []byte) []byte {
	k.Write(k.key)
	return k.Hash.Sum(b)
}
