package wire

import "encoding/binary"

// ESP is an ESP header with what it protects (RFC 4303 §2):
//
//	+---------------------------------------------------------------+
//	|               Security Parameters Index (SPI)                 |
//	+---------------------------------------------------------------+
//	|                      Sequence Number                          |
//	+---------------------------------------------------------------+
//	|       IV, payload, padding, pad length, next header, ICV      |
//	+---------------------------------------------------------------+
type ESP []byte

// SPI is the security parameters index.
func (h ESP) SPI() uint32 { return binary.BigEndian.Uint32(h) }

// SetSPI sets the security parameters index.
func (h ESP) SetSPI(spi uint32) { binary.BigEndian.PutUint32(h, spi) }

// Seq is the sequence number, or its low half with extended sequence numbers.
func (h ESP) Seq() uint32 { return binary.BigEndian.Uint32(h[4:]) }

// SetSeq sets the sequence number, or its low half.
func (h ESP) SetSeq(n uint32) { binary.BigEndian.PutUint32(h[4:], n) }

// Payload is what follows the sequence number: IV, ciphertext and ICV.
func (h ESP) Payload() []byte { return h[ESPHeaderLen:] }

// AH is an authentication header with what follows it (RFC 4302 §2):
//
//	+---------------+---------------+-------------------------------+
//	|  Next Header  |  Payload Len  |           Reserved            |
//	+---------------+---------------+-------------------------------+
//	|               Security Parameters Index (SPI)                 |
//	+---------------------------------------------------------------+
//	|                       Sequence Number                         |
//	+---------------------------------------------------------------+
//	|                   Integrity Check Value (ICV)                 |
//	+---------------------------------------------------------------+
type AH []byte

// NextHeader is the number of the protocol behind the header.
func (h AH) NextHeader() uint8 { return h[0] }

// SetNextHeader sets the number of the protocol behind the header.
func (h AH) SetNextHeader(proto uint8) { h[0] = proto }

// HeaderLen is the length of the header with its ICV in bytes, as the header says.
func (h AH) HeaderLen() int { return (int(h[1]) + 2) * 4 }

// SetHeaderLen sets the length of the header with its ICV in bytes, a multiple of 4.
func (h AH) SetHeaderLen(n int) { h[1] = uint8(n/4 - 2) }

// SPI is the security parameters index.
func (h AH) SPI() uint32 { return binary.BigEndian.Uint32(h[4:]) }

// SetSPI sets the security parameters index.
func (h AH) SetSPI(spi uint32) { binary.BigEndian.PutUint32(h[4:], spi) }

// Seq is the sequence number, or its low half with extended sequence numbers.
func (h AH) Seq() uint32 { return binary.BigEndian.Uint32(h[8:]) }

// SetSeq sets the sequence number, or its low half.
func (h AH) SetSeq(n uint32) { binary.BigEndian.PutUint32(h[8:], n) }

// IPComp is an IPComp header with the compressed data (RFC 3173 §3):
//
//	+---------------+---------------+-------------------------------+
//	|  Next Header  |     Flags     |  Compression Parameter Index  |
//	+---------------+---------------+-------------------------------+
type IPComp []byte

// NextHeader is the number of the protocol that was compressed.
func (h IPComp) NextHeader() uint8 { return h[0] }

// SetNextHeader sets the number of the protocol that was compressed.
func (h IPComp) SetNextHeader(proto uint8) { h[0] = proto }

// CPI is the compression parameter index.
func (h IPComp) CPI() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// SetCPI sets the compression parameter index and clears the flags.
func (h IPComp) SetCPI(cpi uint16) {
	h[1] = 0
	binary.BigEndian.PutUint16(h[2:], cpi)
}
